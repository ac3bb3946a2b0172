"""Known firing rates on two corpora are recovered; the same text in halves is at the null."""

import numpy as np
import pytest

from atlas.errors import EvaluationError
from atlas.latents.drift import (
    FiringCounts,
    drift_from,
    js_divergence,
    log_ratio,
    metric_changes,
    newly_silent,
    require_distinct,
    usage_drift,
)

RATES = np.geomspace(0.002, 0.3, 60)


def firings(rates, n_groups: int = 40, tokens: int = 500, seed: int = 0, scatter: float = 0.0) -> FiringCounts:
    """Groups of documents; with `scatter`, each document has rates of its own around those given."""
    generator = np.random.default_rng(seed)
    own = np.asarray(rates)[:, None] * np.exp(scatter * generator.normal(size=(len(rates), n_groups)))
    return FiringCounts(generator.binomial(tokens, np.minimum(own, 1)), np.full(n_groups, tokens))


def test_planted_rates_are_recovered():
    factors = np.ones(60)
    factors[:20], factors[20:40] = 3.0, 1 / 3
    found = log_ratio(firings(RATES), firings(RATES * factors, seed=1))
    for part, truth in ((slice(0, 20), np.log(3)), (slice(20, 40), -np.log(3)), (slice(40, 60), 0)):
        assert found[part].mean() == pytest.approx(truth, abs=0.08)


def test_smoothing_of_a_silent_latent():
    here, there = FiringCounts(np.array([[9]]), np.array([99])), FiringCounts(np.array([[0]]), np.array([199]))
    assert log_ratio(here, there)[0] == pytest.approx(np.log(0.5 / 200) - np.log(9.5 / 100))


def test_silent_latents_are_new_only_if_silence_is_no_chance():
    here = FiringCounts(np.array([[100], [1], [0], [100]]), np.array([1000]))
    there = FiringCounts(np.array([[0], [0], [0], [1]]), np.array([1000]))
    assert newly_silent(here, there).tolist() == [True, False, False, False]
    short = FiringCounts(np.zeros((4, 1), int), np.array([20]))
    assert not newly_silent(here, short).any()


def test_random_halves_of_one_text_are_at_the_null():
    scores = []
    for seed in range(12):
        text = firings(RATES, n_groups=80, seed=seed, scatter=0.5)
        here, there = text.part(np.arange(40)), text.part(np.arange(40, 80))
        scores.append([number["z"] for number in drift_from(here, there).values()])
    js, spearman, ratio, _ = zip(*scores, strict=True)
    for values in (js, spearman, ratio):
        assert abs(np.mean(values)) < 1
        assert np.abs(values).max() < 5


def test_drift_stands_out_of_the_null():
    factors = np.where(np.arange(60) % 2, 3.0, 1 / 3)
    found = drift_from(firings(RATES, scatter=0.5), firings(RATES * factors, seed=1, scatter=0.5))
    assert found["js_divergence"]["z"] > 10
    assert found["spearman"]["z"] < -5
    assert found["mean_abs_log_ratio"]["z"] > 10
    assert found["js_divergence"]["null_mean"] < found["js_divergence"]["halves"]


def test_newly_silent_share():
    rates = RATES.copy()
    rates[-15:] = 0
    found = drift_from(firings(RATES), firings(rates, seed=1))["newly_silent_share"]
    assert found["value"] == pytest.approx(0.25)
    assert found["null_mean"] == 0


def test_halves_have_equal_tokens():
    """A small second corpus must not look drifted by its size alone."""
    here, there = firings(RATES, 40, 500), firings(RATES, 4, 500, seed=1)
    found = drift_from(here, there)
    assert abs(found["js_divergence"]["z"]) < 4
    assert found["js_divergence"]["value"] > 0


def test_one_document_has_no_null():
    found = drift_from(firings(RATES, 1), firings(RATES, 40, seed=1))
    assert found["spearman"]["value"] > 0.9
    assert (found["spearman"]["null_mean"], found["spearman"]["z"]) == (None, None)


def test_js_divergence_has_its_ends():
    assert js_divergence(np.array([1, 3, 0]), np.array([2, 6, 0])) == pytest.approx(0)
    assert js_divergence(np.array([1, 0]), np.array([0, 5])) == pytest.approx(1)
    assert np.isnan(js_divergence(np.array([0, 0]), np.array([0, 5])))


def test_order_of_latents_and_documents_is_immaterial():
    here, there, order = firings(RATES), firings(RATES, seed=1, scatter=1), np.random.default_rng(0).permutation(60)
    found = usage_drift(
        FiringCounts(here.by_group[order], here.tokens), FiringCounts(there.by_group[order][:, ::-1], there.tokens)
    )
    assert found == pytest.approx(usage_drift(here, there))


def test_changes_of_metrics_have_an_interval_when_both_have_one():
    before = {"l0": 32, "kl": 0.5, "kl_interval": [0.4, 0.7], "dead_status": "dead", "flag": True, "fvu": None}
    after = {"l0": 30, "kl": 0.9, "kl_interval": [0.6, 1.0], "dead_status": "dead", "flag": False, "fvu": 0.2}
    changes = metric_changes(before, after)
    assert set(changes) == {"l0", "kl"}
    assert changes["l0"] == {"from": 32, "to": 30, "change": -2, "interval": None}
    assert changes["kl"]["interval"] == pytest.approx([0.4 - np.hypot(0.3, 0.2), 0.4 + np.hypot(0.1, 0.1)])


def test_the_same_text_is_refused():
    require_distinct({"chat": "a", "news": "b"})
    with pytest.raises(EvaluationError, match=r"corpora 'chat' and 'news' are the same text \(fingerprint a"):
        require_distinct({"chat": "a", "wiki": "b", "news": "a"})
