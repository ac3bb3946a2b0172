"""Encode, loss and inference of each architecture against its definition, written out plainly."""

import pytest
import torch
from training.planted import CPU, SPARSITY, PlantedStream, recipe

from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.base import LossInputs
from atlas.training.architectures.jumprelu import L0, Jump
from atlas.training.architectures.matryoshka_batch_topk import group_sizes
from atlas.training.forward import forward
from atlas.training.sae import load_sae, save_sae
from atlas.training.selection import select_batch
from atlas.training.state import Numerics, folded_sae, new_state
from atlas.training.update import update

DENSE = Numerics(torch.float32, sparse=False)
SPARSE = Numerics(torch.float32, sparse=True)
D, F, B = 6, 10, 40


def small(architecture, **overrides):
    """A state with arbitrary parameters, and rows."""
    settings = recipe(architecture, n_latents=F, batch_size=B, **overrides)
    state = new_state(settings, D, 0, CPU)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            scale = 0.3 if name in ARCHITECTURES[architecture].latent_parameters else 1.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if "thresholds" in state.parameters:
            state.parameters["thresholds"].abs_()
    return settings, state, torch.randn(B, D, generator=generator)


def batch_of(settings, state, rows, step=100):
    p = state.parameters
    return LossInputs(
        rows=rows, targets=rows, centre=p["b_dec"], parameters=p, recipe=settings, step=step, dtype=torch.float32
    )


def loss_and_gradients(settings, state, rows, sparse=False):
    batch = batch_of(settings, state, rows)
    seen = forward(batch, sparse)
    architecture = ARCHITECTURES[settings.architecture]
    loss = torch.stack([(rows - part).square().sum(dim=1).mean() for part in seen.reconstructions]).mean()
    if architecture.penalty is not None:
        loss = loss + architecture.penalty(seen.encoded, batch)
    return loss, torch.autograd.grad(loss, list(state.parameters.values()))


def assert_same(found, wanted):
    torch.testing.assert_close(found[0], wanted[0])
    for ours, plain in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_gated_is_its_definition():
    settings, state, rows = small("gated", l1_coefficient=0.3, sparsity_warmup_steps=200, steps=400)
    p = state.parameters
    product = (rows - p["b_dec"]) @ p["W_enc"]
    gate, magnitude = product + p["b_enc"], torch.relu(p["r_mag"].exp() * product + p["b_mag"])
    reconstruction = ((gate > 0) * magnitude) @ p["W_dec"] + p["b_dec"]
    by_gate = torch.relu(gate) @ p["W_dec"].detach() + p["b_dec"].detach()
    loss = (rows - reconstruction).square().sum(dim=1).mean() + (rows - by_gate).square().sum(dim=1).mean()
    loss = loss + 0.5 * 0.3 * torch.relu(gate).sum(dim=1).mean()  # step 100 of a warm-up of 200
    wanted = loss, torch.autograd.grad(loss, list(p.values()))
    assert_same(loss_and_gradients(settings, state, rows), wanted)


def test_jumprelu_is_its_definition():
    """Gradients of all but the thresholds are those of the mask as a constant."""
    settings, state, rows = small("jumprelu", target_l0=3.0, l0_coefficient=2.0, bandwidth=1.0)
    p = state.parameters
    pre = (rows - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    passes = pre > p["thresholds"]
    latents = pre * passes
    latents.retain_grad()
    error = (rows - latents @ p["W_dec"] - p["b_dec"]).square().sum(dim=1).mean()
    l0 = passes.sum() / B
    error.backward()
    near = ((pre - p["thresholds"]).abs() < 0.5).float()
    of_jump = -(p["thresholds"] * near * latents.grad).sum(dim=0)
    of_penalty = -2.0 * 2 * (l0 / 3.0 - 1) / 3.0 * near.sum(dim=0) / B
    plain = [value.grad if name != "thresholds" else of_jump + of_penalty for name, value in p.items()]
    loss = error.detach() + 2.0 * (l0 / 3.0 - 1) ** 2
    found = loss_and_gradients(settings, state, rows)
    assert near.sum() > 20
    assert_same((found[0].detach(), found[1]), (loss, plain))


def test_straight_through_gradients_estimate_the_true_ones():
    """Values evenly spread over [0, 2], 100 to the unit: a threshold at 1 that rises loses 100 of size 1 per unit."""
    pre, thresholds = torch.linspace(0.005, 1.995, 200)[:, None], torch.tensor([1.0], requires_grad=True)
    (count,) = torch.autograd.grad(200 * L0.apply(pre, thresholds, 0.5), thresholds)
    (mass,) = torch.autograd.grad(Jump.apply(pre, thresholds, 0.5).sum(), thresholds)
    assert count.item() == pytest.approx(-100) and mass.item() == pytest.approx(-100)


@pytest.mark.parametrize("sparse", [False, True])
def test_matryoshka_is_its_definition(sparse):
    settings, state, rows = small("matryoshka_batch_topk", group_fractions=[0.2, 0.3, 0.5])
    assert group_sizes(settings) == (2, 3, 5)
    p = state.parameters
    pre = (rows - p["b_dec"]) @ p["W_enc"] + p["b_enc"]
    kept = torch.zeros_like(pre).view(-1).index_fill(0, select_batch(pre.detach(), settings.k), 1.0).view_as(pre)
    errors = []
    for end in (2, 5, 10):
        reconstruction = (pre * kept)[:, :end] @ p["W_dec"][:end] + p["b_dec"]
        errors.append((rows - reconstruction).square().sum(dim=1).mean())
    loss = sum(errors) / 3
    wanted = loss, torch.autograd.grad(loss, list(p.values()))
    assert_same(loss_and_gradients(settings, state, rows, sparse), wanted)


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu"])
def test_inference_is_what_training_encodes(architecture, tmp_path):
    """After folding, for rows as stored, and after saving."""
    settings, state, rows = small(architecture)
    latents = forward(batch_of(settings, state, rows), sparse=False).encoded.latents.detach()
    assert 0 < (latents > 0).float().mean() < 0.9
    sae = folded_sae(state, settings, scale=8.0)
    torch.testing.assert_close(sae.encode(8 * rows), 8 * latents, rtol=1e-4, atol=1e-4)
    save_sae(sae, tmp_path, {"model_name": "tiny", "hook_name": "resid_post.3"})
    torch.testing.assert_close(load_sae(tmp_path).encode(8 * rows), sae.encode(8 * rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["batch_topk", "matryoshka_batch_topk"])
def test_the_threshold_keeps_what_training_kept(architecture):
    settings, state, rows = small(architecture)
    values = forward(batch_of(settings, state, rows), sparse=False).values.detach()
    state.threshold = values[values > 0].min() * (1 - 1e-5)
    latents = folded_sae(state, settings, scale=8.0).encode(8 * rows)
    torch.testing.assert_close(latents, 8 * values, rtol=1e-4, atol=1e-4)


def test_an_encoder_that_is_trained_without_b_dec_is_saved_with_it():
    settings, state, rows = small("jumprelu", parity="dictionary_learning")
    p = state.parameters
    pre = rows @ p["W_enc"] + p["b_enc"]
    wanted = torch.where(pre > p["thresholds"], pre, 0.0)
    torch.testing.assert_close(folded_sae(state, settings, 1.0).encode(rows), wanted.detach(), rtol=1e-4, atol=1e-4)


def test_thresholds_stay_where_only_positive_values_pass():
    settings = recipe("jumprelu", target_l0=60.0, warmup_steps=0, lr=0.05, bandwidth=0.5)
    state, stream = new_state(settings, 32, 0, CPU), PlantedStream(batch_size=256, scale=0.3)
    for step in range(5):
        update(state, stream.batch(step).rows, settings, DENSE, "planted")
        assert state.parameters["thresholds"].min() >= 0
    assert state.parameters["thresholds"].min() == 0  # the pull was there


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu"])
def test_the_penalty_grows_from_nothing(architecture):
    settings, state, rows = small(architecture, sparsity_warmup_steps=100, steps=400)

    def penalty(step):
        batch = batch_of(settings, state, rows, step)
        total = ARCHITECTURES[architecture].penalty(forward(batch, sparse=False).encoded, batch)
        return total.item()

    start, half, end, after = (penalty(step) for step in (0, 50, 100, 1000))
    assert end == after > start
    assert half == pytest.approx((start + end) / 2, rel=1e-5)
    assert start == 0 or architecture == "gated"  # whose gate must reconstruct from the first step


def test_every_architecture_has_a_planted_recipe():
    """So that a new one is covered by the tests that run over all of them."""
    assert set(SPARSITY) == set(ARCHITECTURES)
