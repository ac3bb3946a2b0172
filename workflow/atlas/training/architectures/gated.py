"""Gated: one affine map of the row decides which latents pass, another one how strongly (arXiv 2404.16014).

Both share W_enc: the gate is ``c W_enc + b_enc`` with c = row - b_dec, the magnitude ``exp(r_mag) (c W_enc) + b_mag``.
The gate is a step without gradient, so its rectified values pay the L1 penalty and reconstruct the row once more, with
a decoder that this term does not train. Source of the objective: dictionary_learning, gdm.py, `GatedSAETrainer`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.architectures.base import Architecture, Encoded, LatentParameter, Latents, LossInputs
from atlas.training.products import Encode, decode


def _activate(pre: Latents, sae) -> Latents:
    p = sae.latent_parameters
    magnitude = p["r_mag"].exp() * (pre - sae.b_enc) + p["b_mag"]
    return torch.where(pre > 0, torch.relu(magnitude), 0.0)


def _encode(batch: LossInputs) -> Encoded:
    p = batch.parameters
    # Biases are added to their own branch, not taken out of the other's sum again: that would cost digits.
    product = Encode.apply(batch.rows, p["W_enc"], torch.zeros_like(p["b_enc"]), batch.centre, batch.dtype)
    gate = product + p["b_enc"]
    magnitude = p["r_mag"].exp() * product + p["b_mag"]
    return Encoded(torch.where(gate > 0, torch.relu(magnitude), 0.0), gate)


def _penalty(encoded: Encoded, batch: LossInputs) -> Float[Tensor, ""]:
    """The L1 norm of the rectified gate, and the squared error of what it reconstructs."""
    open_gate = torch.relu(encoded.pre)
    p = batch.parameters
    reconstruction = decode(open_gate, p["W_dec"].detach(), batch.dtype) + p["b_dec"].detach()
    assert batch.recipe.l1_coefficient is not None  # the recipe of this architecture has one
    sparsity = batch.recipe.l1_coefficient * batch.warmed_up() * open_gate.sum(dim=1).mean()
    return sparsity + (batch.rows - reconstruction).square().sum(dim=1).mean()


GATED = Architecture(
    name="gated",
    saelens="gated",
    activate=_activate,
    encode=_encode,
    penalty=_penalty,
    latent_parameters={
        "r_mag": LatentParameter(initial=0.0, scales=False),
        "b_mag": LatentParameter(initial=0.0, scales=True),
    },
    revives=False,
    betas=(0.0, 0.999),
    saelens_names={"b_enc": "b_gate"},
)
