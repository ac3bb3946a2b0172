"""What captions say of the data, and that the report reads them as plain text."""

from pathlib import Path

import docutils.core
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from atlas.figures.captions import counted_tokens, listed, saes, span
from atlas.figures.style import as_restructured_text, save
from atlas.regimes.figure import describe_regimes
from atlas.transfer.figure import describe_transfer

LIBRARY = Path(__file__).parents[2] / "workflow/atlas"


@pytest.mark.parametrize(("values", "text"), [("a", "a"), ("ab", "a and b"), ("bab", "b and a"), ("cab", "c, a and b")])
def test_lists(values, text):
    assert listed(values) == text


def test_numbers_that_differ_are_a_span():
    assert span([16_366.0, 16_366.0]) == "16,366"
    assert span([1000, 30, 200]) == "30 to 1,000"


def test_saes_are_counted_once_however_many_corpora_they_have():
    rows = pd.DataFrame({"model": "m", "hook": ["a", "a", "b", "b"], "seed": [0, 0, 0, 2], "corpus": [*"xyxx"]})
    assert saes(rows) == "3 SAEs (seeds 0 and 2)"
    assert saes(rows[:2]) == "1 SAE (seed 0)"


def test_tokens_by_corpus_with_every_role():
    rows = pd.DataFrame(
        [("chat", "in_sample", 100), ("news", "oos", 90), ("chat", "oos", 100), ("news", "oos", 1095)],
        columns=["corpus", "role", "n_counted"],
    )
    assert counted_tokens(rows) == (
        "chat (in-sample and out-of-sample, 100 tokens) and news (out-of-sample, 90 to 1,095 tokens)"
    )


def test_the_report_shows_names_of_any_characters(tmp_path):
    caption = r"Study llama_sweep: corpora chat_, *news*, `wiki`_ and a|b|, file c:\x"
    save(plt.figure(), [tmp_path / "a.txt"], caption)
    read = docutils.core.publish_parts(f".. include:: {tmp_path / 'a.txt'}", writer="html")["body"]
    assert read.strip() == f"<p>{caption}</p>"
    assert as_restructured_text("llama_sweep, n = 1,200") == "llama_sweep, n = 1,200"


SAE = {"study": "s", "model": "m", "hook": "resid_post.1", "mix": "chat", "recipe": "topk", "corpus": "chat"}


def test_regimes_say_how_many_were_called_what_was_intended():
    rows = pd.DataFrame([SAE | {"seed": seed, "as_intended": seed > 0, "dead_tokens": 5000} for seed in (0, 1, 2)])
    caption = describe_regimes(rows)
    assert "3 judgements of 3 SAEs (seeds 0, 1 and 2) of m on chat; 2 are called what was intended" in caption
    assert "counted on 5,000 tokens of training text" in caption


def test_transfer_names_its_shifts():
    rows = pd.DataFrame([SAE | {"seed": 0, "shift": shift} for shift in ("twin", "layer-before")])
    assert "1 SAE (seed 0) of m" in describe_transfer(rows)
    assert "under the shifts twin and layer-before" in describe_transfer(rows)


def test_every_figure_of_saes_names_its_models():
    """A figure whose caption says of which models it is says so above the axes too."""
    sources = {path.stem: path.read_text() for path in (LIBRARY / "figures").glob("*.py")}
    sources |= {path.parent.name: path.read_text() for path in LIBRARY.glob("*/figure.py")}
    named = {name for name, source in sources.items() if "listed(" in source and ".model)" in source} - {"captions"}
    assert {"study", "training", "latents", "stability", "width", "autointerp", "transfer", "regimes"} <= named
    assert {name for name in named if "name_models(figure, " not in sources[name]} == set()
