"""Selections that SAEs of other projects have and that nothing here trains: only their inference path is known.

They have no name in SAELens, which therefore refuses a file of one.
"""

import torch
from torch import Tensor

from atlas.training.architectures.base import Architecture, LatentParameter, Latents
from atlas.training.selection import select_rows


def _largest_of_each_group(pre: Latents, sae) -> Latents:
    """The largest of each of k consecutive groups of equal size, if it is positive. Source: eai-sparsify 1.3.3."""
    grouped = pre.view(len(pre), sae.k, -1)
    values, places = grouped.max(dim=2, keepdim=True)
    return torch.zeros_like(grouped).scatter(2, places, values.relu()).view_as(pre)


def _largest_contributions(pre: Latents, sae) -> Latents:
    """The k largest by what they add to the reconstruction: value times norm of the decoder row.

    The latents that are kept keep their own values. Source: llamascopium 2.0.0b34, ``sparsity_include_decoder_norm``.
    """
    kept = select_rows(pre * sae.latent_parameters["norms"], sae.k)
    latents: Tensor = torch.zeros_like(pre)
    latents.view(-1)[kept] = pre.reshape(-1)[kept]
    return latents


GROUP_MAX = Architecture(name="group_max", saelens=None, activate=_largest_of_each_group)
NORM_TOPK = Architecture(
    name="norm_topk",
    saelens=None,
    activate=_largest_contributions,
    latent_parameters={"norms": LatentParameter(initial=1.0, scales=False)},
)
