"""TopK: each row keeps its k largest pre-activations, in training and at inference (arXiv 2406.04093)."""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.architectures.base import Architecture
from atlas.training.selection import select_rows


def _activate(
    pre: Float[Tensor, "rows n_latents"], k: int | None, threshold: float | None
) -> Float[Tensor, "rows n_latents"]:
    kept = select_rows(pre, k)
    latents = torch.zeros_like(pre)
    latents.view(-1)[kept] = pre.reshape(-1)[kept]
    return latents


TOPK = Architecture(name="topk", saelens="topk", select=select_rows, activate=_activate)
