"""The last lines of a run: where its tables, figures and pages are."""

import os

from atlas.studies.made import made_since


def written(folder, *names, at=100.0):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (at, at))


def test_new_tables_figures_and_pages_are_named(tmp_path):
    written(tmp_path, "sweep.csv", "sweep_health.csv", "figures/sweep.pdf", "figures/sweep.png", "atlas/index.html")
    assert made_since(tmp_path, ["sweep"], 100.0) == [
        f"sweep, tables: {tmp_path}/sweep.csv, {tmp_path}/sweep_health.csv",
        f"sweep, figures: {tmp_path}/figures/sweep.pdf",
        f"pages: {tmp_path}/atlas/index.html (open it in a browser)",
    ]


def test_verdicts_are_counted_and_their_page_is_named(tmp_path):
    (tmp_path / "sweep.csv").write_text("study,outcome\nsweep,good\nsweep,dead\nsweep,good\n")
    page = tmp_path / "verdicts/sweep.md"
    assert made_since(tmp_path, ["sweep"], 0)[1] == f"sweep, verdicts: good 2, dead 1 (why: `snakemake {page}`)"
    written(tmp_path, "verdicts/sweep.md")
    assert made_since(tmp_path, ["sweep"], 0)[1] == f"sweep, verdicts: good 2, dead 1 ({page} says why)"


def test_without_pages_the_way_to_them_is_named(tmp_path):
    written(tmp_path, "sweep.csv")
    assert made_since(tmp_path, ["sweep"], 100.0)[-1] == (
        f"pages: none yet; `snakemake {tmp_path}/atlas/index.html` writes them"
    )


def test_a_run_that_made_nothing_to_open_says_nothing(tmp_path):
    written(tmp_path, "sweep.csv", "figures/sweep.pdf", "atlas/index.html", at=99.0)
    assert made_since(tmp_path, ["sweep"], 100.0) == []


def test_a_study_does_not_take_the_files_of_one_with_a_longer_name(tmp_path):
    written(tmp_path, "a.csv", "a_b.csv", "a_b_health.csv", "a_health.csv")
    assert made_since(tmp_path, ["a", "a_b"], 100.0)[:2] == [
        f"a, tables: {tmp_path}/a.csv, {tmp_path}/a_health.csv",
        f"a_b, tables: {tmp_path}/a_b.csv, {tmp_path}/a_b_health.csv",
    ]
