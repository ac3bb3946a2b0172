"""Intervals over few documents: how often they hold the truth, where they are null, and what is printed beside them."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from atlas.statistics.clusters import (
    LEAST_CLUSTERS,
    cluster_interval,
    half_width,
    jackknife_interval,
    ratio_intervals,
    with_clusters,
)


def ratio(top: np.ndarray, bottom: np.ndarray):
    return lambda draws: (draws @ top) / (draws @ bottom)


@pytest.mark.parametrize("n_clusters", [4, 8, 24])
@pytest.mark.parametrize("kind", ["equal", "lengths", "heavy"])
def test_the_truth_is_inside_as_often_as_said(n_clusters, kind):
    """A ratio of sums over documents: of equal length, of very unequal ones, and with losses of a long tail."""
    generator = np.random.Generator(np.random.PCG64(7))
    inside = 0
    for _ in range(2000):
        length = np.ones(n_clusters) if kind == "equal" else generator.exponential(1.0, n_clusters) + 0.05
        loss, truth = 2.0 + generator.normal(size=n_clusters) * 0.5, 2.0
        if kind == "heavy":
            loss, truth = np.exp(0.5 * generator.normal(size=n_clusters)), np.exp(0.125)
        low, high = cluster_interval(ratio(loss * length, length), n_clusters)
        inside += low <= truth <= high
    assert inside / 2000 >= 0.93


def test_a_mean_has_the_width_of_student_times_what_outliers_take():
    values = np.random.default_rng(0).normal(size=400)
    low, high = cluster_interval(ratio(values, np.ones(400)), 400)
    error = values.std(ddof=1) / np.sqrt(400)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=1e-9)
    assert (high - low) / 2 == pytest.approx(half_width(400) * error, rel=1e-9)
    assert half_width(400) == pytest.approx(1.966 * (1 + 0.5 * 60 / 400), abs=1e-3)
    assert half_width(20) == pytest.approx(2.093 * 1.5, abs=1e-3)


def test_the_bias_of_a_variance_is_taken_out():
    """Σ(x − x̄)² / n of n clusters is (n − 1) / n of the variance on average: the jackknife's centre is unbiased."""
    values = np.random.default_rng(1).normal(size=6)

    def variance(draws: np.ndarray) -> np.ndarray:
        n = draws.sum(1)
        return draws @ values**2 / n - (draws @ values / n) ** 2

    low, high = cluster_interval(variance, 6)
    assert (low + high) / 2 == pytest.approx(values.var(ddof=1), abs=1e-9)


def test_too_few_clusters_and_undefined_values_have_none():
    values = np.arange(1.0, 7.0)
    assert cluster_interval(ratio(values, values), LEAST_CLUSTERS - 1) is None
    assert cluster_interval(ratio(values, np.array([0, 0, 0, 0, 0, 1.0])), 6) is None  # undefined without the last
    assert cluster_interval(ratio(values, np.zeros(6)), 6) is None


def test_the_value_is_inside_and_bounds_are_kept():
    top = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    low, high = cluster_interval(ratio(top, np.ones(6)), 6, (0.0, 1.0))
    assert 0 <= low <= 5 / 6 <= high == 1


def test_every_interval_gets_its_number_of_clusters():
    measures = {"loss": 1.0, "loss_interval": [0.5, 2.0], "kl_interval": None}
    assert with_clusters(measures, 7) == {
        "loss": 1.0,
        "loss_interval": [0.5, 2.0],
        "loss_clusters": 7,
        "kl_interval": None,
        "kl_clusters": 7,
    }


def test_intervals_of_a_mean_are_those_of_scipy():
    """The jackknife of a mean is Student's t; the other interval has its centre and is wider by what is said."""
    values = np.random.default_rng(4).normal(size=9)
    without = (values.sum() - values) / 8
    known = ttest_1samp(values, 0).confidence_interval(0.95)
    assert jackknife_interval(values.mean(), without) == pytest.approx([known.low, known.high], rel=1e-12)
    low, high = cluster_interval(ratio(values, np.ones(9)), 9)
    assert [low, high] == pytest.approx([values.mean() - 1.5 * (known.high - known.low) / 2, 2 * values.mean() - low])
    assert np.ravel(ratio_intervals(np.arange(9), values[:, None], np.ones((9, 1)))) == pytest.approx([low, high])


def test_nothing_is_said_where_a_value_is_not_finite():
    assert jackknife_interval(np.nan, np.ones(6)) is None
    assert jackknife_interval(1.0, np.array([1, 1, 1, np.inf])) is None
    assert jackknife_interval(1.0, np.ones(LEAST_CLUSTERS - 1)) is None
    low, high = ratio_intervals(np.arange(4), np.ones((4, 2)), np.array([[1, 1], [1, 0], [1, 0], [1, 0.0]]))
    assert (np.isfinite(low).tolist(), np.isfinite(high).tolist()) == ([True, False], [True, False])
