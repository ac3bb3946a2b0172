"""ReLU with an L1 penalty: every positive pre-activation is kept, and paid for (arXiv 2309.08600).

Decoder rows are held at unit norm, so the penalty cannot be escaped by shrinking latents and growing the decoder.
There is no auxiliary loss: it would bring back what the penalty removes. Source of the objective:
dictionary_learning, standard.py, `StandardTrainer`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.architectures.base import Architecture, Encoded, Latents, LossInputs
from atlas.training.products import Encode


def _activate(pre: Latents, sae) -> Latents:
    return torch.relu(pre)


def _encode(batch: LossInputs) -> Encoded:
    p = batch.parameters
    pre = Encode.apply(batch.rows, p["W_enc"], p["b_enc"], batch.centre, batch.dtype)
    return Encoded(torch.relu(pre), pre)


def _penalty(encoded: Encoded, batch: LossInputs) -> Float[Tensor, ""]:
    """`l1_coefficient` times the mean L1 norm of the latents."""
    assert batch.recipe.l1_coefficient is not None  # the recipe of this architecture has one
    return batch.recipe.l1_coefficient * batch.warmed_up() * encoded.latents.sum() / len(batch.rows)


RELU = Architecture(
    name="relu", saelens="standard", activate=_activate, encode=_encode, penalty=_penalty, revives=False
)
