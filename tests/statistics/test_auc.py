"""The area against its definition, its variance against what it must predict."""

import numpy as np
import pytest
from scipy.special import stdtrit
from sklearn.metrics import roc_auc_score

from atlas.statistics.auc import Auc, area_of_ranks, auc_interval, column_aucs
from atlas.statistics.intervals import normal_interval


def scores_of(seed: int, n_positive: int = 60, n_negative: int = 80, shift: float = 1.0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n_positive + n_negative) < n_positive
    return generator.normal(size=len(labels)) + shift * labels, labels


def test_area_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    labels = generator.random(50) < 0.4
    scores = generator.integers(0, 6, 50).astype(float)  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    found = Auc.of(scores, labels)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    assert found.negatives.mean() == pytest.approx(found.value)


def test_interval_covers_the_truth_as_often_as_it_says():
    """AUC of two unit normals a distance 1 apart is Φ(1/√2) = 0.7602; 400 samples."""
    covered = 0
    for seed in range(400):
        found = Auc.of(*scores_of(seed))
        low, high = normal_interval(found.value, found.variance, 0, 1)
        covered += low < 0.7602 < high
    assert 0.92 < covered / 400 < 0.975


def test_variance_of_a_difference_is_that_over_samples():
    """Two scores of the same rows that share most of their noise differ far less than independent ones would."""
    differences, variances, apart = [], [], []
    for seed in range(300):
        scores, labels = scores_of(seed)
        other = scores + 0.3 * np.random.default_rng(1000 + seed).normal(size=len(scores))
        first, second = Auc.of(scores, labels), Auc.of(other, labels)
        differences.append(first.value - second.value)
        variances.append(first.variance_of_difference(second))
        apart.append(first.variance + second.variance)
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=0.25)
    assert np.mean(variances) < 0.3 * np.mean(apart)


def test_perfect_separation_has_no_interval():
    found = Auc.of(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False]))
    assert found.value == 1
    assert normal_interval(found.value, found.variance, 0, 1) is None


def test_areas_of_columns_are_those_of_each():
    generator = np.random.default_rng(1)
    labels, scores = generator.random(40) < 0.4, generator.integers(0, 5, (40, 6)).astype(float)
    assert column_aucs(scores, labels) == pytest.approx([roc_auc_score(labels, column) for column in scores.T])
    assert np.isnan(area_of_ranks(10.0, 0, 4)) and np.isnan(area_of_ranks(10.0, 4, 4))


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.97])
def test_interval_of_few_examples_covers_the_truth_as_often_as_it_says(n, truth):
    """Answers of 0 and 1: positives are found with probability 2 · truth − 1, and no negative is."""
    generator = np.random.default_rng(n)
    found = 0.5 + 0.5 * generator.binomial(n, 2 * truth - 1, 600) / n
    ends = np.array([auc_interval(value, n, n) for value in found])
    # 600 samples at a coverage of .95 have at least .93 in 98 of 100 cases; the interval holds the truth more often.
    assert ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() >= 0.93


def test_interval_has_a_width_at_the_ends_and_treats_both_alike():
    for n in (2, 5, 50):
        for value in (0.0, 0.2, 0.5, 0.99, 1.0):
            low, high = auc_interval(value, n, n)
            assert 0 <= low <= value <= high <= 1 and high - low > 0.03
            assert auc_interval(1 - value, n, n) == pytest.approx([1 - high, 1 - low], abs=1e-6)
    assert auc_interval(0.8, 50, 50)[0] > auc_interval(0.8, 10, 50)[0] > auc_interval(0.8, 10, 10)[0]


def test_the_score_interval_solves_hanley_and_mcneils_variance():
    value, m, n = 0.8, 12, 30
    reach = stdtrit(11, 0.975)
    for end in auc_interval(value, m, n):
        pooled = (m + n) / 2 - 1
        variance = end * (1 - end) / (m * n) * (1 + pooled * (1 - end) / (2 - end) + pooled * end / (1 + end))
        assert abs(end - value) == pytest.approx(reach * np.sqrt(variance), rel=1e-6)
