"""Intervals from draws of documents: how often they hold the truth, and where there are none."""

import numpy as np
import pytest

from atlas.statistics.clusters import LEAST_CLUSTERS, cluster_interval
from atlas.statistics.draws import document_draws, draws_interval, percentile_interval

SAMPLES = 150
# Latents' mean rates of firing, and their spread over documents (log-normal with mean 1): documents differ.
RATES = np.exp(np.linspace(np.log(1e-3), np.log(0.4), 64))
SPREAD = 0.8


def dense_share(n: int, generator: np.random.Generator):
    """Share of latents that fire on more than a tenth of the tokens, for `n` documents of unequal length."""
    length = np.round(generator.exponential(300, n) + 30)
    wander = np.exp(SPREAD * generator.normal(size=(len(RATES), n)) - SPREAD**2 / 2)
    firings = generator.binomial(length.astype(int), np.minimum(RATES[:, None] * wander, 1))
    return lambda draws: (draws @ firings.T > 0.1 * (draws @ length)[:, None]).mean(1)


def loss_ratio(n: int, generator: np.random.Generator):
    """A ratio of sums over documents of unequal length, with losses of a long tail; the truth is exp(1 / 8)."""
    length, loss = generator.exponential(1.0, n) + 0.05, np.exp(0.5 * generator.normal(size=n))
    return lambda draws: (draws @ (loss * length)) / (draws @ length)


@pytest.mark.parametrize("n_documents", [4, 8, 24])
@pytest.mark.parametrize(("case", "truth"), [(dense_share, (RATES > 0.1).mean()), (loss_ratio, np.exp(1 / 8))])
def test_the_truth_is_inside_as_often_as_said(case, truth, n_documents):
    """A share of latents beyond a limit jumps; percentiles of draws hold either truth in .53 to .83 at 4 and 8."""
    generator, inside = np.random.Generator(np.random.PCG64(7)), 0
    counts = document_draws(n_documents, SAMPLES).T.astype(float)
    for _ in range(250):
        statistic = case(n_documents, generator)
        low, high = draws_interval(statistic(np.ones((1, n_documents)))[0], statistic(counts), n_documents)
        inside += low <= truth <= high
    assert inside / 250 >= 0.91


def test_a_ratio_has_the_interval_of_documents_left_out():
    statistic = loss_ratio(40, np.random.default_rng(0))
    draws = statistic(document_draws(40, 5_000).T.astype(float))
    found = draws_interval(statistic(np.ones((1, 40)))[0], draws, 40)
    assert found == pytest.approx(cluster_interval(statistic, 40), rel=0.05)


def test_few_documents_and_empty_draws_have_none():
    draws = np.linspace(0, 1, 100)
    assert draws_interval(0.5, draws, LEAST_CLUSTERS - 1) is None
    assert draws_interval(np.nan, draws, 9) is None
    assert np.isnan(document_draws(LEAST_CLUSTERS - 1, 5)).all()
    for empty, has_interval in ((5, True), (6, False)):
        some = np.where(np.arange(100) < empty, np.nan, draws)
        assert (draws_interval(0.5, some, 9) is not None) == has_interval
        assert (percentile_interval(some) is not None) == has_interval


def test_bounds_are_kept_and_the_value_is_inside():
    draws = np.array([0.9, 1.0] * 50)
    low, high = draws_interval(1.0, draws, 8, (0.0, 1.0))
    assert low < 0.9 and high == 1
    assert draws_interval(2.0, np.zeros(100), 8)[0] <= 2.0 <= draws_interval(2.0, np.zeros(100), 8)[1]


def test_paired_differences_are_students():
    draws = np.random.default_rng(0).normal(1.0, 0.1, 100_000)
    low, high = draws_interval(1.0, draws, 9, paired=True)
    assert (low + high) / 2 == pytest.approx(1.0)
    assert (high - low) / 2 == pytest.approx(2.306 * 0.1 * np.sqrt(9 / 8), rel=0.01)
