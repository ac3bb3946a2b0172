"""Probes on planted latents: found when they are there, at chance when they are not."""

import numpy as np
import pytest
import sklearn.metrics

from atlas.probing.probes import (
    dense_strength,
    f1_score,
    n_reaching,
    n_split,
    probe_score,
    ranked_latents,
    separation,
    stratified_split,
)


def planted(n_rows: int = 600, n_latents: int = 50, carriers: int = 1, seed: int = 0):
    """Sparse latents that know nothing; each positive row fires one of the first `carriers`."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n_rows) % 2 == 0
    latents = generator.random((n_rows, n_latents)) * (generator.random((n_rows, n_latents)) < 0.1)
    latents[:, :carriers] = 0
    positive = np.flatnonzero(labels)
    latents[positive, generator.integers(0, carriers, len(positive))] = 1 + generator.random(len(positive))
    return latents.astype(np.float32), labels


def score(latents, labels, k, seed=0):
    split = stratified_split(labels, 0.4, seed)
    train = labels[split.train]
    order = ranked_latents(latents[split.train], train)[:k]
    return probe_score(latents[:, order], train, labels[split.test], split), order


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_f1_is_scikit_learns(rate):
    generator = np.random.default_rng(0)
    labels, predicted = generator.random(200) < 0.4, generator.random(200) < rate
    expected = sklearn.metrics.f1_score(labels, predicted, zero_division=0.0)
    assert f1_score(labels, predicted) == pytest.approx(expected, abs=1e-12)


def test_planted_latent_is_found_and_separates():
    latents, labels = planted()
    result, order = score(latents, labels, 1)
    assert list(order) == [0]
    assert result.auc.value == 1
    assert result.f1 == 1


@pytest.mark.parametrize("carriers", [2, 4])
def test_label_spread_over_latents_needs_them_all(carriers):
    latents, labels = planted(carriers=carriers)
    for k in range(1, carriers + 1):
        result, order = score(latents, labels, k)
        assert set(order) <= set(range(carriers))
        assert result.auc.value == pytest.approx(0.5 + 0.5 * k / carriers, abs=0.04)


def test_nothing_planted_is_chance():
    values = []
    for seed in range(20):
        latents, labels = planted(seed=seed)
        latents[:, 0] = 0
        values.append(score(latents, labels, 5)[0].auc.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_split_keeps_classes_apart_and_sides_apart():
    labels = np.array([0] * 10 + [1] * 30 + [2] * 3)
    split = stratified_split(labels, 0.3, seed=4)
    assert not set(split.train) & set(split.test)
    assert sorted([*split.train, *split.test]) == list(range(43))
    assert [int((labels[split.test] == one).sum()) for one in range(3)] == [3, 9, 1]
    assert not np.array_equal(split.test, stratified_split(labels, 0.3, seed=5).test)


def test_separation_ignores_units_and_constants():
    latents, labels = planted()
    scaled = latents * np.linspace(0.01, 1000, latents.shape[1], dtype=np.float32)
    np.testing.assert_allclose(separation(scaled, labels), separation(latents, labels), rtol=1e-3)
    latents[:, 3] = 7
    assert separation(latents, labels)[3] == 0


def test_scores_do_not_depend_on_units():
    latents, labels = planted(carriers=3)
    first, second = score(latents, labels, 2)[0], score(latents * 1000 - 5, labels, 2)[0]
    assert first.auc.value == pytest.approx(second.auc.value, abs=1e-3)


def test_dense_probe_regularises_where_there_is_noise():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2 == 0
    rows = generator.normal(size=(200, 300)).astype(np.float32)
    rows[:, 0] += 1.5 * labels
    split = stratified_split(labels, 0.4, 0)
    assert dense_strength(rows, labels, split, 0) < 1


def test_counts_of_latents():
    f1 = [0.5, 0.6, 0.62, 0.8]
    assert n_reaching(f1, 0.6) == 2
    assert n_reaching(f1, 0.7) == 4
    assert n_reaching(f1, 0.9) is None
    assert n_split(f1, 0.03) == 2  # the third gains no more than .03, what comes after it does not count
    assert n_split([0.5], 0.03) == 1
    assert n_split([0.1, 0.2, 0.3], 0.03) == 3
