"""Select the latents that are kept: exact, deterministic, ties won by the lowest index.

`torch.topk` leaves the order of equal values open, and rounded products make equal values common. It also moves every
value; here a bound leaves out most of them first. The bound is found from the maxima of groups of latents, which one
pass over memory gives, so a group whose maximum is below it is never looked into.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Latents of one group: larger groups leave fewer maxima to compare, and more values to look at (measured: 4 to 12).
_GROUP = 8
# Maxima behind the bound of a row, per kept latent: with 2, less than twice as many values as are kept pass it.
_MAXIMA_PER_KEPT = 2
# Rows have to be this many times longer than k for a bound to pay.
_FILTER_FROM = 32
_SAMPLE = 2**16
_SMALLEST_POSITIVE = torch.finfo(torch.float32).smallest_normal * torch.finfo(torch.float32).eps


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
    """Flat indices of each row's k largest positive values, row by row; fewer than k where fewer are positive."""
    n_rows, n_latents = pre.shape
    if k * _FILTER_FROM > n_latents:
        indices = top_indices(pre, k)
        first = torch.arange(n_rows, device=pre.device)[:, None] * n_latents
        return (first + indices)[pre.gather(1, indices) > 0]
    maxima = _group_maxima(pre)
    flat, values, rows = _candidates(pre, maxima, _row_bounds(maxima, k))
    counts = torch.bincount(rows, minlength=n_rows)
    padded = pre.new_full((n_rows, max(k, int(counts.max()))), -torch.inf)
    # The i-th candidate goes to place (row, i - candidates of the rows before).
    shift = torch.arange(n_rows, device=pre.device) * padded.shape[1] - (counts.cumsum(0) - counts)
    padded.view(-1)[torch.arange(len(flat), device=pre.device) + shift[rows]] = values
    smallest = padded.topk(k, dim=1, sorted=False).values.amin(dim=1)[rows]
    return _keep(flat, values, smallest, rows, k)


def select_batch(pre: Float[Tensor, "rows n_latents"], k: int) -> Int[Tensor, " kept"]:
    """Flat indices of the k x rows largest positive values of the whole batch, ascending."""
    flat, wanted = pre.reshape(-1), k * len(pre)
    floor = floor_of_sample(flat[:: sample_stride(flat.numel())], flat.numel(), wanted)
    candidates = (flat > floor).nonzero().squeeze(1)
    if floor > 0 and len(candidates) < wanted:  # the guess was too high
        candidates = (flat > 0).nonzero().squeeze(1)
    if len(candidates) <= wanted:
        return candidates
    # All values above `floor` are here and they are enough, so the wanted-th largest of them is that of the batch.
    values = flat[candidates]
    smallest = values.topk(wanted, sorted=False).values.amin()
    return _keep(candidates, values, smallest, torch.zeros_like(candidates), wanted)


def _group_maxima(pre: Float[Tensor, "rows n_latents"]) -> Float[Tensor, "rows groups"]:
    """Group g holds latents g, g + groups, g + 2 groups, …; what is left over at the end forms groups of one."""
    n_groups = pre.shape[1] // _GROUP
    whole = pre[:, : _GROUP * n_groups].unflatten(1, (_GROUP, n_groups)).amax(dim=1)
    rest = pre[:, _GROUP * n_groups :]
    return torch.cat([whole, rest], dim=1) if rest.shape[1] else whole


def _row_bounds(maxima: Float[Tensor, "rows groups"], k: int) -> Float[Tensor, "rows 1"]:
    """A positive value that every value must reach to be among the row's k largest positive ones.

    At least k values reach the k-th largest of maxima of disjoint sets.
    """
    sets = _MAXIMA_PER_KEPT * k + 8
    size = maxima.shape[1] // sets
    if size > 1:
        maxima = maxima[:, : size * sets].unflatten(1, (size, sets)).amax(dim=1)
    bounds = maxima.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    return bounds.clamp_min(_SMALLEST_POSITIVE)


def _candidates(
    pre: Float[Tensor, "rows n_latents"], maxima: Float[Tensor, "rows groups"], bounds: Float[Tensor, "rows 1"]
) -> tuple[Int[Tensor, " candidates"], Float[Tensor, " candidates"], Int[Tensor, " candidates"]]:
    """Flat indices, values and rows of all values that reach their row's bound, row by row."""
    n_latents, n_maxima = pre.shape[1], maxima.shape[1]
    n_groups = n_latents // _GROUP
    found = (maxima >= bounds).view(-1).nonzero()
    rows = found.div(n_maxima, rounding_mode="floor")
    members = torch.arange(_GROUP, device=pre.device) * n_groups
    flat = found + rows * (n_latents - n_maxima) + members
    reached = None
    if n_maxima > n_groups:  # a group of one has its member at the end of the row, and repeats it
        alone = found - rows * n_maxima >= n_groups
        flat = torch.where(alone, flat - members + (_GROUP - 1) * n_groups, flat)
        reached = ~alone | (members == 0)
    values = pre.reshape(-1)[flat]
    above = values >= bounds.view(-1)[rows]
    kept = (above if reached is None else above & reached).view(-1).nonzero().squeeze(1)
    return flat.view(-1)[kept], values.view(-1)[kept], rows.view(-1)[kept.div(_GROUP, rounding_mode="floor")]


def _keep(flat: Tensor, values: Tensor, smallest: Tensor, rows: Tensor, k: int) -> Int[Tensor, " kept"]:
    """Entries that reach the smallest kept value of their row; of those tied with it the first, up to k in all."""
    kept = values >= smallest
    excess = torch.bincount(rows[kept]) - k
    if bool((excess > 0).any()):
        tied = ((values == smallest) & (excess > 0)[rows]).nonzero().squeeze(1)
        tied = tied[flat[tied].argsort(descending=True)]
        counts = torch.bincount(rows[tied], minlength=len(excess)).flip(0)
        place = torch.arange(len(tied), device=flat.device) - (counts.cumsum(0) - counts).flip(0)[rows[tied]]
        kept[tied[place < excess[rows[tied]]]] = False
    return flat[kept]


def sample_stride(n: int) -> int:
    """Each how many values one is looked at to guess a floor."""
    return max(1, n // _SAMPLE) | 1


def floor_of_sample(sample: Float[Tensor, " m"], n: int, wanted: int) -> float:
    """A value that clearly more than `wanted` of n values exceed, guessed from a sample; a bad guess costs time."""
    rank = math.ceil(1.5 * wanted / n * len(sample)) + 16
    if rank >= len(sample):
        return 0.0
    return max(0.0, float(sample.topk(rank, sorted=False).values.min()))
