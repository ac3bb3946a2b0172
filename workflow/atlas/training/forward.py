"""The forward pass of training: which latents are kept, and what they reconstruct."""

from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.training.architectures import ARCHITECTURES, Architecture
from atlas.training.architectures.base import Encoded, LossInputs
from atlas.training.products import DecodeKept, Encode, EncodeKept, Kept, decode, pre_activations


@dataclass(frozen=True)
class Forward:
    """Forward pass of a batch through the SAE in training.

    `reconstructions` are those of the nested groups, from the first group to all latents; only the last where there are
    no groups. `values` are the kept values (any shape; zeros are not kept), `fired` which latents kept one. `encoded`
    has the dense latents of an architecture that computes them.
    """

    reconstructions: tuple[Float[Tensor, "batch d_model"], ...]
    values: Float[Tensor, "..."]
    fired: Bool[Tensor, " n_latents"]
    encoded: Encoded | None = None


def forward(batch: LossInputs, sparse: bool) -> Forward:
    """Encode and decode a batch as training does; `sparse` computes with kept latents alone, if they are selected."""
    architecture = ARCHITECTURES[batch.recipe.architecture]
    if architecture.select is None:
        assert architecture.encode is not None  # an architecture has one of the two
        encoded = architecture.encode(batch)
        fired = (encoded.latents.detach() > 0).any(dim=0)
        return Forward(_decode(encoded.latents, architecture, batch), encoded.latents, fired, encoded)
    return (_sparse_forward if sparse else _dense_forward)(batch, architecture)


def _dense_forward(batch: LossInputs, architecture: Architecture) -> Forward:
    p = batch.parameters
    assert architecture.select is not None and batch.recipe.k is not None  # a recipe has k where latents are selected
    pre = Encode.apply(batch.rows, p["W_enc"], p["b_enc"], batch.centre, batch.dtype)
    kept = torch.zeros_like(pre, dtype=torch.bool)
    kept.view(-1).index_fill_(0, architecture.select(pre.detach(), batch.recipe.k), True)
    latents = torch.where(kept, pre, 0.0)
    return Forward(_decode(latents, architecture, batch), latents, kept.any(dim=0))


def _decode(latents: Tensor, architecture: Architecture, batch: LossInputs) -> tuple[Tensor, ...]:
    p = batch.parameters
    if architecture.groups is None:
        return (decode(latents, p["W_dec"], batch.dtype) + p["b_dec"],)
    sizes = architecture.groups(batch.recipe)
    parts = zip(latents.split(sizes, dim=1), p["W_dec"].split(sizes), strict=True)
    return _nested([decode(of_group, rows, batch.dtype) for of_group, rows in parts], p["b_dec"])


def _sparse_forward(batch: LossInputs, architecture: Architecture) -> Forward:
    p = batch.parameters
    assert architecture.select is not None and batch.recipe.k is not None  # a recipe has k where latents are selected
    with torch.no_grad():
        centred = batch.rows - batch.centre
        pre = pre_activations(centred, p["W_enc"], p["b_enc"], batch.dtype)
        kept = Kept(architecture.select(pre, batch.recipe.k), pre.shape[0], pre.shape[1], batch.dtype)
    values = EncodeKept.apply(centred, p["W_enc"], p["b_enc"], batch.centre, pre.view(-1)[kept.flat], kept)
    fired = torch.zeros(kept.n_latents, dtype=torch.bool, device=pre.device).index_fill_(0, kept.latents, True)
    if architecture.groups is None:
        return Forward((DecodeKept.apply(values, p["W_dec"], kept) + p["b_dec"],), values, fired)
    parts, first = [], 0
    for rows in p["W_dec"].split(architecture.groups(batch.recipe)):
        mine = ((kept.latents >= first) & (kept.latents < first + len(rows))).nonzero().squeeze(1)
        of_group = Kept(kept.rows[mine] * len(rows) + kept.latents[mine] - first, kept.n_rows, len(rows), batch.dtype)
        parts.append(DecodeKept.apply(values[mine], rows, of_group))
        first += len(rows)
    return Forward(_nested(parts, p["b_dec"]), values, fired)


def _nested(parts: list[Tensor], b_dec: Tensor) -> tuple[Tensor, ...]:
    return tuple(accumulate(parts[1:], initial=b_dec + parts[0]))
