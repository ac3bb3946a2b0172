"""Rank correlations: against scipy, and with intervals over groups."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from atlas.statistics.ranks import grouped_rank_correlation, rank_correlation


def test_spearman_is_that_of_scipy_ties_included():
    generator = np.random.default_rng(3)
    first, second = generator.integers(0, 6, 40), generator.normal(size=40)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert rank_correlation(first[:2], second[:2]) is None
    assert rank_correlation(np.ones(5), second[:5]) is None


def test_rank_correlation_of_an_order_that_is_kept():
    hooks = [f"h{number}" for number in range(12)]
    found = grouped_rank_correlation(range(12), np.exp(np.arange(12)), hooks)
    assert found["value"] == pytest.approx(1)
    assert found["interval"] == pytest.approx([1, 1])


def test_rank_correlation_of_noise_reaches_zero():
    generator = np.random.default_rng(0)
    found = grouped_rank_correlation(generator.random(30), generator.random(30), np.arange(30))
    assert found["interval"][0] < 0 < found["interval"][1]


def test_seeds_of_a_hook_are_no_further_evidence():
    x, noise = np.arange(6.0), np.random.default_rng(0).random(6) * 4
    alone = grouped_rank_correlation(x, x + noise, range(6))
    repeated = grouped_rank_correlation(np.tile(x, 5), np.tile(x + noise, 5), np.tile(np.arange(6), 5))
    assert repeated["value"] == pytest.approx(alone["value"])
    assert np.ptp(repeated["interval"]) > 0.8 * np.ptp(alone["interval"])


def test_nothing_to_correlate():
    assert grouped_rank_correlation([1, 2, 3], [1, 2, 3], [*"abc"]) == {"value": None, "interval": None, "n": 3}
    assert grouped_rank_correlation([1, 1, 1, 1], [1, 2, 3, 4], [*"abcd"])["value"] is None
    assert grouped_rank_correlation([1, 2, 3, np.nan, 5], [1, 2, 3, 4, np.nan], [*"abcde"])["n"] == 3
    assert grouped_rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], [*"aaab"])["interval"] is None
