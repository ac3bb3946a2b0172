"""The table of provoked regimes and what becomes of it."""

import pandas as pd
import pytest

from atlas.config.study import Taxonomy
from atlas.regimes.figure import plot_regimes
from atlas.regimes.study_table import RANDOM, confusion_table


def table() -> pd.DataFrame:
    found = [
        ("dead", "dead"),
        ("dead", "dead"),
        ("dead", "failed"),
        ("good", "good"),
        ("good", "good"),
        ("good", "good"),
    ]
    frame = pd.DataFrame(found, columns=["intended", "outcome"])
    place = {"hook": "resid_post.1", "mix": "chat", "recipe": "topk", "seed": range(6)}
    null = {"random_explained_variance_regular": 0.1, "random_outcome": ["under-capacity"] * 5 + ["good"]}
    return frame.assign(**place, **null)


def test_confusion_counts_every_row_once():
    found = confusion_table(table()).set_index(["intended", "verdict"])
    assert found.n.to_dict() == {
        ("dead", "dead"): 2,
        ("dead", "failed"): 1,
        ("good", "good"): 3,
        (RANDOM, "under-capacity"): 5,
        (RANDOM, "good"): 1,
    }
    assert found.loc[("dead", "failed"), "share"] == pytest.approx(1 / 3)
    assert not found.loc[("dead", "failed"), "as_intended"] and found.loc[("good", "good"), "as_intended"]
    assert list(confusion_table(table()).intended.unique()) == ["dead", "good", RANDOM]


def test_one_random_dictionary_in_two_rows_is_counted_once():
    twice = pd.concat([table(), table().assign(intended="failed", outcome="failed")])
    found = confusion_table(twice).set_index("intended")
    assert found.loc[RANDOM, "n"].tolist() == [5, 1] and found.loc["failed", "n"] == 6


def test_intervals_are_clopper_pearson():
    """3 of 3: the lower end is (α/2)^(1/3), the upper one 1; 1 of 6 from the tables of the binomial distribution."""
    found = confusion_table(table()).set_index(["intended", "verdict"])
    assert found.loc[("good", "good"), "share_low"] == pytest.approx(0.025 ** (1 / 3))
    assert found.loc[("good", "good"), "share_high"] == 1
    assert found.loc[(RANDOM, "good"), ["share_low", "share_high"]].tolist() == pytest.approx(
        [0.0042, 0.6412], abs=1e-4
    )


def test_figure_has_a_line_per_cause_and_says_how_often_it_was_called_so():
    frame = table().assign(
        model="tiny",
        cause=["no revival"] * 3 + ["nothing wrong"] * 3,
        seed=[0, 1, 2] * 2,
        explained_variance_regular=[0.3, 0.4, -80.0, 0.7, 0.7, 0.7],
        explained_variance_regular_interval_low=0.2,
        explained_variance_regular_interval_high=0.8,
        dead_pct=[95.0, 96, 97, 0, 0, 1],
        dead_pct_at_10000=99.0,
        share_max_cosine_above_07=0.2,
        share_max_cosine_above_07_null_mean=0.1,
        dense_pct=10.0,
    )
    figure = plot_regimes(frame, Taxonomy())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["no revival", "nothing wrong"]
    texts = [text.get_text() for text in figure.axes[4].texts]
    assert texts == ["dead", "2 of 3; failed 1", "good", "3 of 3"]
    # A value far below the axis is written out, not left away.
    assert "-80" in [text.get_text() for text in figure.axes[0].texts]
