"""The forward pass of training: which latents are kept, and what they reconstruct."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.training.architectures import ARCHITECTURES
from atlas.training.products import DecodeKept, Encode, EncodeKept, Kept, decode, pre_activations
from atlas.training.state import Numerics, TrainingState


@dataclass(frozen=True)
class Forward:
    """Reconstruction, the values that were kept (any shape; zeros are not kept), and which latents fired."""

    reconstruction: Float[Tensor, "batch d_model"]
    values: Float[Tensor, "..."]
    fired: Bool[Tensor, " n_latents"]


def forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    """Reconstruct normalised float32 rows, keeping what the recipe's architecture keeps in training."""
    return (_sparse_forward if numerics.sparse else _dense_forward)(state, rows, recipe, numerics)


def _dense_forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    p, select = state.parameters, ARCHITECTURES[recipe.architecture].select
    pre = Encode.apply(rows, p["W_enc"], p["b_enc"], p["b_dec"], numerics.dtype)
    if select is None:
        kept = pre.detach() > 0
    else:
        kept = torch.zeros_like(pre, dtype=torch.bool)
        kept.view(-1).index_fill_(0, select(pre.detach(), recipe.k), True)
    latents = torch.where(kept, pre, 0.0)
    return Forward(decode(latents, p["W_dec"], numerics.dtype) + p["b_dec"], latents, kept.any(dim=0))


def _sparse_forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    p, select = state.parameters, ARCHITECTURES[recipe.architecture].select
    with torch.no_grad():
        centred = rows - p["b_dec"]
        pre = pre_activations(centred, p["W_enc"], p["b_enc"], numerics.dtype)
        kept = Kept(select(pre, recipe.k), *pre.shape)
    values = EncodeKept.apply(centred, p["W_enc"], p["b_enc"], p["b_dec"], pre.view(-1)[kept.flat], kept)
    fired = torch.zeros(kept.n_latents, dtype=torch.bool, device=rows.device).index_fill_(0, kept.latents, True)
    return Forward(DecodeKept.apply(values, p["W_dec"], kept) + p["b_dec"], values, fired)
