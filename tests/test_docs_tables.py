"""Tables of pages are what the recorded results say, and recording keeps what was measured and where."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from atlas.docs import pages, record
from atlas.docs.tables import DocsError, TableSpec, filled, markdown, number
from atlas.runcard import REQUIRED

ROWS = [
    {"layer": "4", "seed": "0", "ev": "0.8914", "delta": "-0.0599", "shares": '{"good": 0.25}', "outcome": "good"},
    {"layer": "4", "seed": "1", "ev": "0.8921", "delta": "", "shares": "", "outcome": "good"},
    {"layer": "10", "seed": "0", "ev": "0.5", "delta": "1234.5", "shares": "{}", "outcome": "a|b"},
]


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_tables_are_made_from_the_recorded_results(page):
    text = page.read_text(encoding="utf-8")
    assert pages.page_text(text, page.name) == text, f"run `make docs`: {page.name} differs from docs/results"


def test_every_recorded_file_is_shown_and_has_its_machine():
    for path in pages.RESULTS.glob("*.csv"):
        header = path.read_text(encoding="utf-8").splitlines()[0].split(",")
        assert header == record.shown()[path.stem], f"run `make record`: {path.name} has other columns than pages show"
        kept = json.loads(path.with_suffix(".json").read_text())
        assert kept["machine"]["processor"] and kept["products"] and kept["versions"]["torch"] and kept["commit"]


@pytest.mark.parametrize(
    ("text", "form", "written"),
    [
        ("0.8914", "3", ".891"),
        ("-0.0599", "3", "−.060"),
        ("-0.0001", "2", ".00"),
        ("0.0", "1", "0"),
        ("1234.5", "0", "1,234"),
        ("0.978", "1%", "97.8 %"),
        ("0.978", "1p", "97.8"),
        ("", "3", "–"),
    ],
)
def test_numbers_are_written_as_pages_write_them(text, form, written):
    assert number(text, form) == written


@pytest.mark.parametrize(("text", "form", "message"), [("inf", "3", "not finite"), ("1", ".3f", "expected digits")])
def test_what_is_no_number_is_an_error(text, form, message):
    with pytest.raises(DocsError, match=message):
        number(text, form)


def test_columns_that_hold_json_are_read_by_key():
    assert [filled("{shares[good]:0p}", row) for row in ROWS] == ["25", "–", "–"]


def spec(**changes) -> TableSpec:
    return TableSpec.model_validate({"table": "t", "cells": {"EV": "{ev:2}", "verdict": "{outcome}"}} | changes)


def test_layouts():
    across = markdown(spec(across="layer {layer}"), ROWS, "t.csv").splitlines()
    assert across == [
        "|  | layer 4 | layer 10 |",
        "| --- | --- | --- |",
        "| EV | .89 | .50 |",
        r"| verdict | good | a\|b |",
    ]
    down = markdown(spec(down="{layer}", corner="layer", where={"seed": "0"}), ROWS, "t.csv").splitlines()
    assert down == ["| layer | EV | verdict |", "| --- | --- | --- |", "| 4 | .89 | good |", r"| 10 | .50 | a\|b |"]
    both = markdown(spec(across="seed {seed}", down="{layer}", cells={"": "{delta:2}"}), ROWS, "t.csv").splitlines()
    assert both[0::2] == ["|  | seed 0 | seed 1 |", "| 4 | −.06 | – |"]
    assert both[3] == "| 10 | 1,234.50 |  |"


def test_values_that_differ_stand_side_by_side():
    table = markdown(spec(across="layer {layer}", cells={"EV": "{ev:3}"}), ROWS, "t.csv")
    assert "| EV | .891, .892 | .500 |" in table


def test_a_span_shows_the_ends():
    rows = [{"ev": value, "outcome": name} for value, name in (("0.5", "good"), ("-0.06", "failed"), ("0.34", "good"))]
    table = markdown(spec(across="all", span=True), rows, "t.csv").splitlines()
    assert table[2:] == ["| EV | −.06 to .50 |", "| verdict | good, failed |"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"across": "{depth}"}, r"t\.csv: no column depth, which the table shows"),
        ({"across": "{layer}", "where": {"layer": "5"}}, r"t\.csv: no row where \{'layer': '5'\}"),
    ],
)
def test_a_table_that_cannot_be_made_is_an_error(changes, message):
    with pytest.raises(DocsError, match=message):
        markdown(spec(**changes), ROWS, "t.csv")


def page_of(text: str) -> str:
    return f"before\n<!-- table: t\n{text}-->\nold\n<!-- end of table -->\nafter\n"


def test_a_page_without_recorded_results_says_so(tmp_path):
    new = pages.page_text(page_of('across: "{layer}"\nhow: make it\ncells: {EV: "{ev:2}"}\n'), "page.md", tmp_path)
    assert "old" not in new and "no recorded results" in new and "`make it`" in new
    assert new.startswith("before\n<!-- table: t\n") and new.endswith("<!-- end of table -->\nafter\n")


@pytest.mark.parametrize("text", ["cells: {", 'cells: {a: "{b}"}\n', 'across: "{a}"\ncells: {a: "{b}"}\nmore: 1\n'])
def test_a_faulty_specification_names_its_page(tmp_path, text):
    with pytest.raises(DocsError, match=r"page\.md, `table: t`: the specification"):
        pages.page_text(page_of(text), "page.md", tmp_path)


def test_a_table_without_an_end_is_an_error(tmp_path):
    with pytest.raises(DocsError, match=r"page\.md: a table is not closed"):
        pages.page_text("<!-- table: t\n-->\nold\n", "page.md", tmp_path)


def results_of(folder: Path, processor: str) -> Path:
    """A file of results, and the run card of its SAE."""
    columns = "model,hook,mix,recipe,seed,ev,unused"
    (folder / "t.csv").write_text(f'{columns}\nm,h,x,r,0,0.10000000000000001,"1,2"\n')
    card = folder / "saes/m/h/x/r/seed-0/run_card.yaml"
    card.parent.mkdir(parents=True)
    fields = {name: dict.fromkeys(keys, "x") for name, keys in REQUIRED.items()}
    fields["hardware"] = {"device": "cpu", "name": processor, "threads": 1}
    fields["numerics"]["products"] = "float16"
    card.write_text(yaml.safe_dump(fields))
    return folder


def test_recording_keeps_text_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "read_run_card", lambda path: yaml.safe_load(path.read_text()))
    results = results_of(tmp_path, record.machine()["processor"])
    record.record("t", ["ev", "seed"], results / "t.csv", results, tmp_path / "kept", "abc")
    assert (tmp_path / "kept/t.csv").read_text() == "ev,seed\n0.10000000000000001,0\n"
    kept = json.loads((tmp_path / "kept/t.json").read_text())
    assert (kept["products"], kept["commit"]) == (["float16"], "abc")
    assert kept["machine"] == record.machine()


def test_results_of_another_machine_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "read_run_card", lambda path: yaml.safe_load(path.read_text()))
    results = results_of(tmp_path, "Another CPU")
    with pytest.raises(DocsError, match=r"run_card\.yaml: trained on 'Another CPU', but this machine is"):
        record.record("t", ["ev"], results / "t.csv", results, tmp_path / "kept", "abc")
    assert not (tmp_path / "kept").exists()


def test_a_column_that_results_lack_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(DocsError, match=r"t\.csv: no column b, which a page shows"):
        record.record("t", ["a", "b"], tmp_path / "t.csv", tmp_path, tmp_path / "kept", "abc")


def test_the_commit_is_of_the_checkout_that_has_the_results(tmp_path):
    def git(*words):
        author = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(["git", *author, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "results").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("a: 1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert record.commit_of(tmp_path / "results") == git("rev-parse", "HEAD")
    (tmp_path / "config/config.yaml").write_text("a: 2\n")
    with pytest.raises(DocsError, match=r"changed since the last commit: config/config\.yaml; commit it"):
        record.commit_of(tmp_path / "results")


def test_results_outside_a_checkout_are_refused(tmp_path):
    with pytest.raises(DocsError, match=r"git status failed: .*record results of a git checkout"):
        record.commit_of(tmp_path / "results")
