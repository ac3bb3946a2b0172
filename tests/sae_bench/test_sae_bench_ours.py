"""Our numbers on SAE Bench's tokens, and what its formulas make of planted rows."""

import pytest
import torch

from atlas.sae_bench.ours import explained_variance_of_sae_bench, measure
from atlas.training.sae import Sae

D_MODEL, N_LATENTS = 16, 24


def rows(scale: float = 1.0, n: int = 96, offset: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * (offset + torch.randn(n, D_MODEL, generator=generator))


def constant(value: torch.Tensor) -> Sae:
    """An SAE whose latents never fire: it reconstructs `value` for every row."""
    zero = torch.zeros
    W_dec = torch.eye(N_LATENTS)[:, :D_MODEL]
    return Sae("topk", zero(D_MODEL, N_LATENTS), zero(N_LATENTS) - 1, W_dec, value, k=4)


def random() -> Sae:
    generator = torch.Generator().manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(N_LATENTS, D_MODEL, generator=generator), dim=1)
    return Sae("topk", W_dec.T.clone(), torch.zeros(N_LATENTS), W_dec, torch.full((D_MODEL,), 2.0), k=4)


def test_mean_predictor_is_0_for_us_and_not_for_sae_bench():
    planted = rows()
    numbers = measure(constant(planted.double().mean(0).float()), [planted])
    assert numbers["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert (numbers["l0"], numbers["fired_share"]) == (0, 0)
    formula = numbers["sae_bench_formula"]
    # d_model 16, mean ‖x‖² near 16 (2² + 1) = 80, its square over dimensions 25, the true variance 16.
    assert formula["explained_variance"] == pytest.approx(1 - 16 / (80 - 25), abs=0.05)
    assert formula["explained_variance_of_the_mean"] == pytest.approx(formula["explained_variance"], abs=1e-6)


def test_sae_benchs_explained_variance_depends_on_scale_and_passes_1():
    """Rows and dictionary scaled together: the same SAE. Above mean ‖x‖² = d_model² its variance is negative."""
    unit = measure(constant(rows().mean(0)), [rows()])
    values = [measure(constant(rows(s).mean(0)), [rows(s)]) for s in (0.5, 3.0)]
    for scaled in values:
        assert scaled["explained_variance"] == pytest.approx(unit["explained_variance"], abs=1e-6)
    small, large = (scaled["sae_bench_formula"]["explained_variance"] for scaled in values)
    assert unit["sae_bench_formula"]["explained_variance"] < small < 1 < large


def test_formula_is_the_one_that_was_read():
    squares = torch.tensor([[4.0, 0.0], [2.0, 2.0]])
    # mean ‖x‖² = 4, mean over dimensions 2, squared 4: no variance is left.
    assert explained_variance_of_sae_bench(squares / 2, torch.tensor([0.5, 0.5])) == pytest.approx(1 - 0.5 / (2 - 1))


def test_batches_change_sae_benchs_mse_and_none_of_ours():
    planted, sae = rows(), random()
    whole, halves = measure(sae, [planted]), measure(sae, list(planted.chunk(2)))
    for key in set(whole) - {"sae_bench_formula"}:
        assert halves[key] == pytest.approx(whole[key], rel=1e-6), key
    assert halves["sae_bench_formula"]["mse"] == pytest.approx(2 * whole["sae_bench_formula"]["mse"])
    assert whole["l0"] == 4
    assert whole["mean_squared_error"] == pytest.approx(96 * whole["sae_bench_formula"]["mse"])
