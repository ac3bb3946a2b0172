"""ReLU with an L1 penalty: every positive pre-activation is kept, and paid for.

Decoder rows are held at unit norm, so the penalty cannot be escaped by shrinking latents and growing the decoder.
There is no auxiliary loss: it would bring back what the penalty removes. Source of the objective:
dictionary_learning, standard.py, `StandardTrainer`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.training.architectures.base import Architecture


def _activate(
    pre: Float[Tensor, "rows n_latents"], k: int | None, threshold: float | None
) -> Float[Tensor, "rows n_latents"]:
    return torch.relu(pre)


def l1_penalty(latents: Float[Tensor, "..."], n_rows: int, recipe: Recipe, step: int) -> Float[Tensor, ""]:
    """`l1_coefficient` times the mean L1 norm of the latents; grows from 0 over the first `l1_warmup_steps`."""
    share = min(step / recipe.l1_warmup_steps, 1.0) if recipe.l1_warmup_steps else 1.0
    return recipe.l1_coefficient * share * latents.sum() / n_rows


RELU = Architecture(name="relu", saelens="standard", select=None, activate=_activate, penalty=l1_penalty, revives=False)
