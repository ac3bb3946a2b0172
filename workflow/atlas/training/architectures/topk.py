"""TopK: each row keeps its k largest pre-activations, in training and at inference (arXiv 2406.04093)."""

import torch

from atlas.training.architectures.base import Architecture, Latents
from atlas.training.selection import select_rows


def _activate(pre: Latents, sae) -> Latents:
    kept = select_rows(pre, sae.k)
    latents = torch.zeros_like(pre)
    latents.view(-1)[kept] = pre.reshape(-1)[kept]
    return latents


# SAELens has no class of its own for a topk transcoder: its topk, told not to subtract b_dec, computes the same.
TOPK = Architecture(name="topk", saelens="topk", saelens_transcoder="topk", activate=_activate, select=select_rows)
