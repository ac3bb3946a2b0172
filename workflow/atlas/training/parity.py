"""Differences of the reference implementations, in one place. docs/metrics.md, "Training, exactly", has the reasons.

`parity` in a recipe asks for the update of a reference, step for step; without it training follows `Conventions()`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.training.architectures.base import LossInputs
from atlas.training.selection import top_indices


@dataclass(frozen=True)
class Conventions:
    """Choices of an update that are no part of the architecture.

    `start`: encoder and decoder rows are equal and of unit norm, or of norm 0.1, or the encoder's norms are as drawn.
    `gradient_clip`: largest global norm of the gradient. `bias_start`: what b_dec starts from, of the first batch.
    `centred`: the encoder sees rows minus b_dec. `auxiliary`: what the auxiliary loss is computed from; None: there is
    none. `relative`: errors are divided by the variance of the batch. `dead_before_batch`: dead latents are looked up
    before the batch is counted, and silent for more than the limit, not at least for it. `restricts`: parameters are
    kept in the range of the architecture. `groups_averaged_twice`: the loss of nested groups is divided by their number
    once more.
    """

    start: Literal["unit", "short", "encoder as drawn"] = "unit"
    gradient_clip: float = 1.0
    bias_start: Literal["median", "mean", "zero"] = "median"
    centred: bool = True
    auxiliary: Literal["pre-activations", "rectified", "rectified, decoder only"] | None = "pre-activations"
    relative: bool = False
    dead_before_batch: bool = False
    restricts: bool = True
    groups_averaged_twice: bool = False


_PENALISED = Conventions(gradient_clip=math.inf, bias_start="zero")
_REFERENCES = {
    ("dictionary_learning", "topk"): Conventions(auxiliary="rectified"),
    ("dictionary_learning", "batch_topk"): Conventions(auxiliary="rectified"),
    ("dictionary_learning", "matryoshka_batch_topk"): Conventions(auxiliary="rectified", groups_averaged_twice=True),
    ("dictionary_learning", "relu"): replace(_PENALISED, start="short"),
    ("dictionary_learning", "gated"): _PENALISED,
    ("dictionary_learning", "jumprelu"): Conventions(bias_start="zero", centred=False, auxiliary=None, restricts=False),
    ("sparsify", "topk"): Conventions(
        start="encoder as drawn",
        gradient_clip=math.inf,
        bias_start="mean",
        auxiliary="rectified, decoder only",
        relative=True,
        dead_before_batch=True,
    ),
}


def conventions(recipe: Recipe) -> Conventions:
    """The choices that hold for a recipe."""
    return _REFERENCES[recipe.parity, recipe.architecture] if recipe.parity else Conventions()


def decoder_auxiliary_loss(
    batch: LossInputs, residual: Float[Tensor, "batch d_model"], dead: Int[Tensor, " dead"]
) -> Float[Tensor, ""]:
    """The auxiliary loss of sparsify, which trains decoder rows alone: its encoder passes no gradient to dead latents.

    Each row uses its min(d_model / 2, dead) largest rectified pre-activations among the dead latents. The squared error
    is divided by the variance of the batch, and scaled down where fewer than d_model / 2 are dead.
    """
    p, d_model = batch.parameters, batch.rows.shape[1]
    with torch.no_grad():
        pre = torch.relu((batch.rows - batch.centre) @ p["W_enc"][:, dead] + p["b_enc"][dead])
        k_aux = min(d_model // 2, len(dead))
        kept = torch.zeros_like(pre).scatter_(1, top_indices(pre, k_aux), 1.0)
        variance = (batch.rows - batch.rows.mean(dim=0)).square().sum()
    error = (residual.detach() - (pre * kept) @ p["W_dec"][dead]).square().sum()
    return min(len(dead) / (d_model // 2), 1.0) * error / variance
