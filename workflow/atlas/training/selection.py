"""Which latents are kept: exact, deterministic, ties won by the lowest index.

`torch.topk` leaves the order of equal values open, and rounded products make equal values common.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Below this many values a filter before the search costs more than it saves (measured: 2 CPU cores).
_FILTER_FROM = 2**20
_SAMPLE = 2**16


def top_indices(values: Float[Tensor, "rows n"], k: int) -> Int[Tensor, "rows k"]:
    """Indices of each row's k largest values, ascending; equal values: lowest index first."""
    n = values.shape[1]
    if k >= n:
        return torch.arange(n, device=values.device).expand(len(values), n)
    largest, indices = values.topk(k + 1, dim=1)  # one more than wanted shows whether the last place is tied
    indices = indices[:, :k]
    tied = largest[:, k] == largest[:, k - 1]
    if tied.any():
        indices = indices.clone()
        indices[tied] = _first_indices(values[tied], largest[tied, k - 1 : k], k)
    return indices.sort(dim=1).values


def _first_indices(values: Float[Tensor, "rows n"], bound: Float[Tensor, "rows 1"], k: int) -> Int[Tensor, "rows k"]:
    above, ties = values > bound, values == bound
    wanted = k - above.sum(dim=1, keepdim=True)
    return (above | (ties & (ties.cumsum(dim=1) <= wanted))).nonzero()[:, 1].view(-1, k)


def select_rows(pre: Float[Tensor, "rows n_latents"], k: int) -> Int[Tensor, " kept"]:
    """Flat indices of each row's k largest positive values, ascending; fewer than k where fewer are positive."""
    indices = top_indices(pre, k)
    positive = pre.gather(1, indices) > 0
    first = torch.arange(len(pre), device=pre.device)[:, None] * pre.shape[1]
    return (first + indices)[positive]


def select_batch(pre: Float[Tensor, "rows n_latents"], k: int) -> Int[Tensor, " kept"]:
    """Flat indices of the k x rows largest positive values of the whole batch, ascending."""
    flat, wanted = pre.reshape(-1), k * len(pre)
    floor = _floor(flat, wanted)
    candidates = (flat > floor).nonzero().squeeze(1)
    if floor > 0 and len(candidates) < wanted:
        candidates = (flat > 0).nonzero().squeeze(1)
    if len(candidates) <= wanted:
        return candidates
    # All values above `floor` are here and they are enough, so the wanted-th largest of them is that of the batch.
    values = flat[candidates]
    bound = values.topk(wanted, sorted=False).values.min()
    above, ties = values > bound, values == bound
    return candidates[above | (ties & (ties.cumsum(dim=0) <= wanted - above.sum()))]


def _floor(flat: Float[Tensor, " n"], wanted: int) -> float:
    """A value that clearly more than `wanted` values exceed, guessed from a sample; a bad guess costs time only."""
    if flat.numel() < _FILTER_FROM:
        return 0.0
    sample = flat[:: flat.numel() // _SAMPLE | 1]
    rank = math.ceil(1.5 * wanted / flat.numel() * len(sample)) + 16
    if rank >= len(sample):
        return 0.0
    return max(0.0, float(sample.topk(rank, sorted=False).values.min()))
