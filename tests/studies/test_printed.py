"""Tables for readers: what they hold is what the CSV holds, and no name breaks their markup."""

import re

import pandas as pd
import pytest

from atlas.studies.printed import UNDEFINED, as_latex, as_markdown, print_study, printed, with_usefulness

INTERVALS = {"atlas_explained_variance_regular": (0.71, 0.68, 0.73), "atlas_loss_recovered_zero": (0.9, 0.85, 0.951)}
INTERVALS["atlas_loss_recovered_mean_regular"] = (0.65, 0.6, 0.7)


def study(**changes) -> pd.DataFrame:
    """Two layers; the second was published, and its loss recovered is not defined."""
    row = {
        **dict.fromkeys(("random_weights", "target_hook", "shift")),
        **{"model": "m", "site": "resid_post", "layer": 4, "n_latents": 1200, "k": 32, "seed": 0, "mix": "a_b"},
        **{"corpus": "chat", "recipe": "topk", "outcome": "good", "learnt": "untested"},
        **{"atlas_l0": 32.0, "atlas_l0_interval_low": 32.0, "atlas_l0_interval_high": 32.0},
        **{"atlas_explained_variance": 0.5, "atlas_dead_pct": 1.25, "atlas_dead_tokens": 16_366},
        **{"atlas_dead_status": "untested", "redundancy_share_max_cosine_above_07_value": 0.2816},
        "redundancy_share_max_cosine_above_07_null_mean": 0.1671,
    }
    for name, values in INTERVALS.items():
        row |= dict(zip((name, f"{name}_interval_low", f"{name}_interval_high"), values, strict=True))
    published = dict.fromkeys(f"published_{name}" for name in ("l0", "loss_recovered_pct", "dead_pct", "absorption"))
    second = row | {"layer": 10, "atlas_dead_status": "dead", "atlas_loss_recovered_zero": None, "k": None}
    second |= {"published_l0": 115.0, "published_outcome": "unhealthy", "published_loss_recovered_pct": 92.6}
    return pd.DataFrame([row | published | {"published_outcome": None}, published | second]).assign(**changes)


def rows_of_markdown(text: str) -> list[list[str]]:
    """Cells of a pipe table, its escapes undone."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()]
    cells = [[re.sub(r"\\([\\`*_|<>])", r"\1", cell.strip()) for cell in line] for line in lines]
    return [cells[0], *cells[2:]]


def rows_of_latex(text: str) -> list[list[str]]:
    """Cells of a tabular, its escapes undone."""
    lines = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    return [[re.sub(r"\\([%&_#{}$])", r"\1", cell) for cell in line] for line in lines]


def in_latex(cells: pd.DataFrame) -> list[list[str]]:
    """Rows that the LaTeX must hold: ours, then what was published, once."""
    published = [name for name in cells if name.startswith("published ")]
    places = [name for name in ("layer", "latents", "k") if name in cells]
    theirs = cells.loc[cells[published].ne(UNDEFINED).any(axis=1), [*places, *published]].drop_duplicates()
    ours = cells.drop(columns=published)
    below = [[name.removeprefix("published ") for name in theirs], *theirs.to_numpy().tolist()] if published else []
    return [list(ours), *ours.to_numpy().tolist(), *below]


def test_values_are_those_of_the_table():
    first, second = printed(study()).to_dict("records")
    assert first["L0"] == "32.0"  # an interval that these digits do not show is left out
    assert first["explained variance"] == "0.500"
    assert first["without massive activations"] == "0.710 [0.680, 0.730]"
    assert first["recovered, zero (%)"] == "90.0 [85.0, 95.1]"
    assert first["recovered, mean (%)"] == "65.0 [60.0, 70.0]"
    assert first["dead (%)"] == "1.2 (untested, 16,366 tokens)" and second["dead (%)"] == "1.2 (16,366 tokens)"
    assert first["copies (%)"] == "28.2 (random 16.7)"
    assert (first["k"], first["published L0"], first["published outcome"]) == ("32", UNDEFINED, UNDEFINED)
    assert (second["k"], second["recovered, zero (%)"]) == (UNDEFINED, UNDEFINED)
    assert (second["published L0"], second["published loss recovered (%)"]) == ("115.0", "92.6")


def test_names_are_shown_where_they_differ_and_published_columns_where_there_are_any():
    assert "mix" not in printed(study()) and "published dead (%)" not in printed(study())
    assert printed(study(mix=["a", "b"])).mix.tolist() == ["a", "b"]
    assert printed(study(shift=[None, "moved"]))["shift"].tolist() == [UNDEFINED, "moved"]
    assert not [name for name in printed(study(published_l0=None)) if name == "published L0"]


@pytest.mark.parametrize("name", ["50%_of & more #1", "x_y_z", "{a}$b$", "*bold*_it_", "a|b", "<i>`code`\\n"])
def test_no_name_breaks_the_markup(name):
    cells = printed(study(corpus=name))
    expected = [list(cells), *cells.to_numpy().tolist()]
    assert rows_of_markdown(as_markdown(cells)) == expected
    if "\\" not in name and "<" not in name:
        assert rows_of_latex(as_latex(cells)) == in_latex(cells)


def test_latex_is_a_tabular_of_booktabs_with_every_character_escaped():
    text = as_latex(printed(study(corpus="50%_&")))
    assert text.startswith("% needs array and booktabs\n{\\scriptsize") and text.endswith("\\end{tabular}\n}\n")
    assert text.count("\\begin{tabular}") == 2  # ours, and what was published
    assert all(rule in text for rule in ("\\toprule", "\\midrule", "\\bottomrule"))
    assert "50\\%\\_\\&" in text and "recovered, zero (\\%)" in text


def test_a_table_that_fits_no_page_is_a_longtable():
    text = as_latex(printed(pd.concat([study()] * 30)))
    assert text.startswith("% needs array, booktabs and longtable\n")
    assert text.count("\\begin{longtable}") == text.count("\\begin{tabular}") == 1
    assert len(rows_of_latex(text.split("% published")[1])) == 2  # its heading, and one row for thirty


def test_latex_fits_the_width_of_a_page():
    """The names of a sweep and of a grid of sizes, intervals of the usual digits: 7 inches are 504 points."""
    for changes in ({}, {"recipe": ["topk-1200-k32", "topk"], "outcome": "under-capacity", "corpus": "encyclopedia"}):
        ours = as_latex(printed(study(**changes))).split("% published")[0]
        widths = [int(points) for points in re.findall(r"p\{(\d+)pt\}", ours)]
        assert len(widths) == len(printed(study(**changes)).filter(regex="^(?!published )").columns)
        assert sum(widths) + 2 * len(widths) < 504


def test_an_outcome_never_stands_without_what_was_learnt():
    for row in printed(study()).to_dict("records"):
        assert row["outcome"] == "good · learnt untested"


def test_differences_over_twins_stand_below_ours():
    kl = "over_twin_kl_regular"
    over = {kl: 0.25, f"{kl}_interval_low": 0.1, f"{kl}_interval_high": 0.4}
    rows = study(learnt="yes", learnt_kl_regular="yes", best_twin_kl_regular="near_decoder", **over)
    cells = printed(rows)
    assert set(cells["KL, over the best twin"]) == {"0.250 [0.100, 0.400]: yes (near_decoder)"}
    assert set(cells.outcome) == {"good · learnt yes"}
    ours, below = as_latex(cells).split("% over the best twin")
    assert "best twin" not in ours and "KL" not in ours
    assert rows_of_latex(below)[0] == ["layer", "latents", "k", "seed", "corpus", "KL"]
    assert "near\\_decoder" in below


def test_both_files_are_written_from_the_csv(tmp_path):
    study().to_csv(tmp_path / "s.csv", index=False)
    print_study(tmp_path / "s.csv", None, tmp_path / "s.md", tmp_path / "s.tex")
    read = rows_of_markdown((tmp_path / "s.md").read_text())
    latex = rows_of_latex((tmp_path / "s.tex").read_text())
    assert len(read) == 3 and latex == in_latex(pd.DataFrame(read[1:], columns=read[0]))
    assert "32.0" in read[1] and "115.0" in read[2]


def judged(**changes) -> pd.DataFrame:
    """Usefulness of both SAEs of `study`."""
    row = {"model": "m", "hook": "h.4", "target_hook": None, "mix": "a_b", "recipe": "topk", "seed": 0}
    row |= {"corpus": "chat", "useful": "no", "untested": "learnt"}
    return pd.DataFrame([row, row | {"hook": "h.10", "useful": "yes", "untested": None}]).assign(**changes)


def test_usefulness_stands_beside_the_outcome_it_belongs_to(tmp_path):
    study(hook=["h.4", "h.10"]).to_csv(tmp_path / "s.csv", index=False)
    judged().to_csv(tmp_path / "s_usefulness.csv", index=False)
    print_study(tmp_path / "s.csv", tmp_path / "s_usefulness.csv", tmp_path / "s.md", tmp_path / "s.tex")
    first, second, third = rows_of_markdown((tmp_path / "s.md").read_text())
    place = first.index("outcome")
    assert second[place] == "good · learnt untested · useful no"
    assert third[place] == "good · learnt untested · useful yes"


def test_usefulness_of_another_corpus_or_of_home_is_not_shown():
    rows = study(hook=["h.4", "h.10"])
    plain = ["good · learnt untested"] * 2
    assert printed(with_usefulness(rows, judged(corpus="news"))).outcome.tolist() == plain
    assert printed(with_usefulness(rows.assign(shift="moved"), judged())).outcome.tolist() == plain
    # A seed that some rows lack is read as a float.
    found = printed(with_usefulness(rows, judged(seed=[0.0, None], untested="loss"))).outcome.tolist()
    assert found == ["good · learnt untested · useful no", "good · learnt untested"]
