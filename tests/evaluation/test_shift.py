"""An SAE that is fed scaled rows."""

import pytest
import torch

from atlas.config.recipe import Recipe
from atlas.errors import EvaluationError
from atlas.evaluation.shift import fed_scaled
from atlas.training.sae import Sae
from atlas.training.state import folded_sae, new_state

ARCHITECTURES = {
    "topk": {"k": 4},
    "batch_topk": {"k": 4, "threshold_start_step": 0},
    "matryoshka_batch_topk": {"k": 4, "threshold_start_step": 0, "group_fractions": (0.5, 0.5)},
    "relu": {"l1_coefficient": 0.1},
    "gated": {"l1_coefficient": 0.1},
    "jumprelu": {"target_l0": 4.0},
}


def any_sae(architecture: str) -> Sae:
    recipe = Recipe(architecture=architecture, n_latents=32, steps=2, **ARCHITECTURES[architecture])
    state = new_state(recipe, 16, 0, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in state.parameters.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    state.threshold.fill_(0.2)
    return folded_sae(state, recipe, 3.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_multiplied_before_they_are_encoded_and_nothing_else(architecture):
    sae, rows = any_sae(architecture), torch.randn(50, 16, generator=torch.Generator().manual_seed(2))
    shifted = fed_scaled(sae, 0.3)
    assert sae.encode(rows).any()
    torch.testing.assert_close(shifted.encode(rows), sae.encode(0.3 * rows), rtol=0, atol=0)
    assert not torch.equal(shifted.encode(rows), sae.encode(rows))
    torch.testing.assert_close(shifted.decode(shifted.encode(rows)), sae.decode(sae.encode(0.3 * rows)))
    moved = shifted.to("cpu")
    assert torch.equal(moved.encode(rows), shifted.encode(rows))


def test_a_scale_of_one_is_the_sae_itself():
    sae = any_sae("topk")
    assert fed_scaled(sae, 1.0) is sae


def test_a_transcoder_is_refused():
    sae = any_sae("topk")
    transcoder = Sae("topk", sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, k=4, is_transcoder=True)
    with pytest.raises(EvaluationError, match=r"scale is 0\.5: a transcoder"):
        fed_scaled(transcoder, 0.5)
