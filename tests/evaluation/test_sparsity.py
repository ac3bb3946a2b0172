"""What a silent latent is worth at a number of tokens."""

import numpy as np
import pytest
import torch

from atlas.evaluation.sparsity import (
    FiringSums,
    expected_false_dead,
    rare_count,
    silent_by_chance,
    sparsity_metrics,
)
from atlas.statistics.intervals import rate_upper

RATES = 10 ** np.linspace(-7, -2, 400)


def counted(fired: torch.Tensor, massive: torch.Tensor | None = None, batch: int = 1000) -> FiringSums:
    massive = torch.zeros(len(fired), dtype=torch.bool) if massive is None else massive
    sums = FiringSums.start(fired.shape[1], torch.device("cpu"))
    for start in range(0, len(fired), batch):
        sums.update(fired[start : start + batch], massive[start : start + batch])
    return sums


def with_counts(counts: list[int], tokens: int) -> FiringSums:
    return FiringSums(tokens, tokens, torch.tensor(counts), sum(counts))


@pytest.mark.parametrize(("tokens", "silent"), [(10_000, 220), (100_000, 140), (1_000_000, 64), (10_000_000, 8)])
def test_live_latents_that_look_dead(tokens, silent):
    assert round(silent_by_chance(RATES, tokens)) == silent


def test_estimate_of_false_dead_is_a_lower_bound_near_the_truth():
    """400 live latents, none dead: at 1 M tokens 64 are silent; the estimate sees more than a third of them."""
    generator = np.random.default_rng(0)
    estimates, truths = [], []
    for _ in range(50):
        counts = generator.binomial(1_000_000, RATES)
        estimates.append(expected_false_dead(counts))
        truths.append((counts == 0).sum())
    assert 0.35 * np.mean(truths) < np.mean(estimates) < np.mean(truths)
    assert expected_false_dead(np.array([0, 0, 500, 900])) == 0
    assert expected_false_dead(np.array([0, 0, *[1] * 10])) == 2  # never more than are silent


def test_clopper_pearson_bound():
    assert rate_upper(np.array([0]), 10_000)[0] == pytest.approx(1 - 0.05 ** (1 / 10_000), rel=1e-9)
    assert rate_upper(np.array([0]), 10_000)[0] == pytest.approx(3e-4, rel=0.01)
    assert rate_upper(np.array([5]), 10)[0] == pytest.approx(0.7776, abs=1e-3)  # exact binomial tables
    assert rate_upper(np.array([10]), 10)[0] == 1
    assert rate_upper(np.array([0]), 0)[0] == 1


def test_rare_latents_need_tokens():
    assert rare_count(999_999, 1_000_000) == -1
    assert rare_count(1_000_000, 1_000_000) == 0
    count = rare_count(10_000_000, 1_000_000)
    limit = rate_upper(np.array([0]), 1_000_000)[0]
    assert rate_upper(np.array([count]), 10_000_000)[0] <= limit
    assert rate_upper(np.array([count + 1]), 10_000_000)[0] > limit


def test_silent_is_untested_until_there_are_enough_tokens():
    few = sparsity_metrics(with_counts([0, 0, 3, 900], 999), None, 1000)
    assert (few["dead_status"], few["dead_pct"], few["dead_tokens"], few["dead_pct_upper"]) == ("untested", 50, 999, 0)
    enough = sparsity_metrics(with_counts([0, 0, 3, 900], 1000), None, 1000)
    assert (enough["dead_status"], enough["dead_pct"], enough["dead_pct_upper"]) == ("dead", 50, 50)
    many = sparsity_metrics(with_counts([0, 0, 3, 9000], 10_000), None, 1000)
    assert (many["dead_pct"], many["dead_pct_upper"]) == (50, 75)  # 3 in 10,000 is below 3 in 1000, with 95 %


def test_planted_dead_dense_and_l0():
    fired = torch.zeros(4000, 10, dtype=torch.bool)
    fired[:, 0] = True
    fired[::5, 1] = True
    fired[::50, 2] = True
    massive = torch.arange(4000) % 50 == 0
    sums = counted(fired, massive, batch=333)
    result = sparsity_metrics(sums, 2, 1000)
    assert result["l0"] == pytest.approx(1.22)
    assert result["l0_regular"] == pytest.approx(1 + (800 - 80) / 3920)
    assert result["dead_pct"] == 70
    assert result["dense_pct"] == 20
    assert (result["sparsity_constraint_broken"], result["l0_target"]) == (True, 2)


@pytest.mark.parametrize(("k", "broken"), [(10, False), (11, False), (9, True), (12, True), (None, None)])
def test_constraint_is_broken_beyond_ten_percent(k, broken):
    fired = torch.ones(50, 10, dtype=torch.bool)
    assert sparsity_metrics(counted(fired), k, 10)["sparsity_constraint_broken"] is broken
