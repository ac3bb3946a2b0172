"""Our updates against those of the reference implementations, step for step (docs/metrics.md, "Training, exactly").

The fixtures are numbers that the references put out; make_fixtures.py says how. The measure is the largest absolute
difference in a tensor over the largest absolute value of the reference's; relative differences of single entries mean
nothing where an entry is 0. Ours are computed in float64, so that the difference, which is the rounding of the
references' float32, is the same on every processor.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from training.parity import cases
from training.planted import in_float64

from atlas.config.recipe import Recipe
from atlas.training.architectures import ARCHITECTURES
from atlas.training.state import Numerics, TrainingState, new_state, set_decoder_bias
from atlas.training.update import update

CPU = torch.device("cpu")
TOLERANCE = 1e-5
SEED = 3
FIXTURES = Path(__file__).parent / "fixtures"
# Cases that start as the reference does from the same seed; the others, from the weights it had.
SAME_SEED = ("topk", "batch_topk", "sparsify_topk")
SPARSE = ("topk", "batch_topk", "matryoshka_batch_topk", "sparsify_topk")


def recipe_of(case):
    reference, settings = cases.CASES[case]
    sizes = {"n_latents": cases.N_LATENTS, "batch_size": cases.BATCH_SIZE, "steps": cases.STEPS}
    return Recipe(**settings, **sizes, parity=reference)


@cache
def fixture(case):
    with np.load(FIXTURES / f"{case}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def start(case) -> TrainingState:
    state = new_state(recipe_of(case), cases.D_MODEL, SEED, CPU)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            if case in SAME_SEED and name != "b_enc":
                torch.testing.assert_close(parameter.detach(), fixture(case)[f"start.{name}"], rtol=0, atol=1e-6)
            else:
                parameter.copy_(fixture(case)[f"start.{name}"])
    return in_float64(state, recipe_of(case))


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(
    ("case", "products"),
    [(case, "dense") for case in cases.CASES] + [(case, way) for case in SPARSE for way in ("sparse", "fused")],
)
def test_updates_are_those_of_the_reference(case, products):
    recipe, expected, state = recipe_of(case), fixture(case), start(case)
    numerics = Numerics.named(torch.float64, products)
    found, auxiliary = {}, 0
    for step in range(cases.STEPS):
        rows = torch.from_numpy(cases.batch(step)).double()
        if step == 0:
            set_decoder_bias(state, rows, recipe)
        auxiliary += bool(update(state, rows, recipe, numerics, "planted").auxiliary > 0)
        if "tokens_since_fired" in expected:
            assert torch.equal(state.tokens_since_fired.int(), expected["tokens_since_fired"][step]), step
        if ARCHITECTURES[recipe.architecture].has_threshold:
            assert state.threshold.item() == pytest.approx(expected["threshold"][step].item(), rel=TOLERANCE)
        if state.step in cases.COMPARED:
            for name, value in state.parameters.items():
                found[f"{state.step}.{name}"] = difference(value.detach(), expected[f"{state.step}.{name}"])
    assert max(found.values()) < TOLERANCE, found
    assert auxiliary > 30 or not recipe.k  # revival took part wherever there is one


@pytest.mark.parametrize("case", cases.CASES)
def test_initial_weights_are_as_large_as_those_of_the_reference(case):
    state = new_state(recipe_of(case), cases.D_MODEL, SEED, CPU)
    for name in ("W_enc", "W_dec"):
        expected = fixture(case)[f"start.{name}"].norm()
        torch.testing.assert_close(state.parameters[name].detach().norm(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("case", cases.CASES)
def test_the_fixture_is_a_real_run(case):
    """Weights moved, thresholds were set, latents died and fired: nothing above is compared that never changes."""
    stored, (_, settings) = fixture(case), cases.CASES[case]
    for name in [key.removeprefix("start.") for key in stored if key.startswith("start.")]:
        assert difference(stored[f"60.{name}"], stored[f"start.{name}"]) > 100 * TOLERANCE
    if "threshold_start_step" in settings:
        unset = settings["threshold_start_step"] + 1
        assert (stored["threshold"][:unset] == -1).all() and (stored["threshold"][unset:] > 0).all()
    if "k" in settings:
        dead = (stored["tokens_since_fired"] >= settings["dead_feature_tokens"]).sum(dim=1)
        assert dead[-1] > 0 and (stored["tokens_since_fired"][-1] == 0).any()


def test_without_parity_the_update_is_another_one():
    """The tolerance tells the references' rules from ours."""
    recipe = recipe_of("batch_topk")
    state, ours = start("batch_topk"), recipe.model_copy(update={"parity": None})
    for step in range(30):
        rows = torch.from_numpy(cases.batch(step)).double()
        if step == 0:
            set_decoder_bias(state, rows, ours)
        update(state, rows, ours, Numerics(torch.float64, sparse=False), "planted")
    found = difference(state.parameters["W_enc"].detach(), fixture("batch_topk")["30.W_enc"])
    assert found > 10 * TOLERANCE
