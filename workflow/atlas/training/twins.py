"""Twins: trained nulls, which see the same rows by the same rule but may not learn all weights. docs/twins.md.

A frozen weight needs no gradient, so that neither the backward pass nor Adam spends time on it, and its bits stay.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe

# Which weights each twin keeps at their start; biases and thresholds are trained, or sparsity would not be the same.
_FROZEN = {"frozen_decoder": "W_dec", "frozen_encoder": "W_enc"}
# Rows are put back a little nearer than asked, so that rounding to float32 leaves none further away.
_ROUNDING = 1e-6


def freeze(parameters: Mapping[str, torch.nn.Parameter], recipe: Recipe) -> None:
    """Mark the weights that the recipe's twin keeps as needing no gradient; without a twin, change nothing."""
    if recipe.twin in _FROZEN:
        parameters[_FROZEN[recipe.twin]].requires_grad_(False)


def trained(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that an update may change, by name."""
    return {name: value for name, value in parameters.items() if value.requires_grad}


def decoder_start(
    parameters: Mapping[str, torch.nn.Parameter], recipe: Recipe
) -> Float[Tensor, "n_latents d_model"] | None:
    """Copy the decoder before training, which twin `near_decoder` is held to; None for all others."""
    return parameters["W_dec"].detach().clone() if recipe.twin == "near_decoder" else None


@torch.no_grad()
def keep_near(
    W_dec: Float[Tensor, "n_latents d_model"], start: Float[Tensor, "n_latents d_model"], cosine: float
) -> None:
    """Move unit rows that have a smaller cosine than `cosine` with their unit start to the nearest row that has it.

    In place; rows within that cosine keep their bits. A row opposite to its start has no nearest one: it is put back to
    the start.
    """
    along = torch.linalg.vecdot(W_dec, start)
    far = (along < cosine).nonzero().squeeze(1)
    if not len(far):
        return
    origin = start[far]
    across = W_dec[far] - along[far].unsqueeze(1) * origin
    length = across.norm(dim=1, keepdim=True)
    kept = min(cosine + _ROUNDING, 1.0)
    nearest = kept * origin + (1 - kept**2) ** 0.5 * across / length
    W_dec[far] = torch.where(length > _ROUNDING, nearest, origin)
