"""The figure of labels: rank correlations with intervals, and a drawing from a table."""

import numpy as np
import pandas as pd
import pytest

from atlas.autointerp.figure import draw_autointerp, rank_correlation


def test_rank_correlation_of_an_order_that_is_kept():
    hooks = [f"h{number}" for number in range(12)]
    found = rank_correlation(range(12), np.exp(np.arange(12)), hooks)
    assert found["value"] == pytest.approx(1)
    assert found["interval"] == pytest.approx([1, 1])


def test_rank_correlation_of_noise_reaches_zero():
    generator = np.random.default_rng(0)
    found = rank_correlation(generator.random(30), generator.random(30), np.arange(30))
    assert found["interval"][0] < 0 < found["interval"][1]


def test_seeds_of_a_hook_are_no_further_evidence():
    x, noise = np.arange(6.0), np.random.default_rng(0).random(6) * 4
    alone = rank_correlation(x, x + noise, range(6))
    repeated = rank_correlation(np.tile(x, 5), np.tile(x + noise, 5), np.tile(np.arange(6), 5))
    assert repeated["value"] == pytest.approx(alone["value"])
    assert np.ptp(repeated["interval"]) > 0.8 * np.ptp(alone["interval"])


def test_nothing_to_correlate():
    assert rank_correlation([1, 2, 3], [1, 2, 3], [*"abc"]) == {"value": None, "interval": None, "n": 3}
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], [*"abcd"])["value"] is None
    assert rank_correlation([1, 2, 3, np.nan, 5], [1, 2, 3, 4, np.nan], [*"abcde"])["n"] == 3
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], [*"aaab"])["interval"] is None


def test_figure_from_a_table(tmp_path):
    generator = np.random.default_rng(0)
    rows = [
        {
            "study": "sweep",
            "model": "m",
            "hook": f"resid_post.{hook}",
            "target_hook": None,
            "mix": "chat",
            "recipe": "topk",
            "seed": seed,
            "dictionary": dictionary,
            "explainer": "lexical",
            "scorer": "embedding",
            "negatives": "random",
            "n_scored": 40,
            "fvu": 0.1 * hook if dictionary == "sae" else None,
            "absorption_guide": generator.random(),
            "labels_repeated_semantic": generator.random(),
            **{f"{name}{end}": generator.random() for name in ("score", "specificity") for end in ENDS},
        }
        for hook in range(4)
        for seed in (0, 1)
        for dictionary in ("sae", "random")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    draw_autointerp(tmp_path / "table.csv", [tmp_path / f"a.{suffix}" for suffix in ("png", "pdf", "txt")])
    assert (tmp_path / "a.png").stat().st_size > 20_000
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (
        "labels of 8 SAEs (seeds 0 and 1) of m, by explainer lexical; scores of 40" in (tmp_path / "a.txt").read_text()
    )


ENDS = ("", "_interval_low", "_interval_high")
