"""Redundancy of a dictionary from its decoder alone, beside random dictionaries. docs/metrics.md, section 4."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# The open script behind the published absorption numbers averages this many cosines, each pair counted twice.
GUIDE_PAIRS = 100
PAIR_COSINE = 0.5
# Most pairs whose firing is compared: a collapsed dictionary has hundreds of millions.
MAX_PAIRS = 10_000
# Float32 elements of a block of cosines: 64 MiB.
_CHUNK_ELEMENTS = 2**24
_NO_COSINE = -2.0  # below any cosine: a latent is no neighbour of itself
# Rows whose cosines are taken in float64 at a time.
_SLICE = 8192


@dataclass(frozen=True)
class Geometry:
    """Measures of unit decoder rows; `pairs` are the latents i < j with the largest cosines above `PAIR_COSINE`."""

    values: dict[str, float]
    n_pairs: int
    pairs: Int[Tensor, "2 pairs"]


def decoder_geometry(W_dec: Float[Tensor, "n_latents d_model"]) -> Geometry:
    """Cosines between decoder rows and their spectrum, a block of rows at a time, each pair of rows once.

    A row of zeros has cosine 0 with all others.
    """
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
    n_latents = len(unit)
    # Of each pair once, half as many as are averaged.
    keep, n_largest = min(GUIDE_PAIRS, n_latents), (min(GUIDE_PAIRS, n_latents) + 1) // 2
    largest, maximum = unit.new_full((n_largest,), _NO_COSINE), unit.new_full((n_latents,), _NO_COSINE)
    found, indices, n_pairs = unit.new_empty(0), torch.empty(2, 0, dtype=torch.int64, device=unit.device), 0
    step = max(1, _CHUNK_ELEMENTS // n_latents)
    for start in range(0, n_latents, step):
        cosines = unit[start : start + step] @ unit[start:].T
        n_rows = len(cosines)
        lower = torch.ones(n_rows, n_rows, dtype=torch.bool, device=unit.device).tril()
        cosines[:, :n_rows].masked_fill_(lower, _NO_COSINE)
        of_rows = cosines.amax(1)
        maximum[start : start + n_rows] = torch.maximum(maximum[start : start + n_rows], of_rows)
        maximum[start:] = torch.maximum(maximum[start:], cosines.amax(0))
        # A row whose maximum is small has nothing to add: few have, and looking at all values is what costs.
        mine = cosines[of_rows > largest[-1]]
        largest = torch.cat([largest, mine[mine > largest[-1]]]).topk(n_largest).values
        close = (of_rows > PAIR_COSINE).nonzero().squeeze(1)
        row, column = (cosines[close] > PAIR_COSINE).nonzero(as_tuple=True)
        n_pairs += len(row)
        found = torch.cat([found, cosines[close[row], column]])
        indices = torch.cat([indices, torch.stack([close[row] + start, column + start])], dim=1)
        if len(found) > MAX_PAIRS:
            found, kept = found.topk(MAX_PAIRS)
            indices = indices[:, kept]
    values = {
        "absorption_guide": largest.double().repeat_interleave(2)[:keep].mean().item(),
        "mean_max_cosine": maximum.double().mean().item(),
        "share_max_cosine_above_07": (maximum > 0.7).double().mean().item(),
        "share_max_cosine_above_09": (maximum > 0.9).double().mean().item(),
        "effective_directions": effective_directions(unit),
    }
    return Geometry(values, n_pairs, indices)


def effective_directions(unit: Float[Tensor, "n_latents d_model"]) -> float:
    """exp of the entropy of the normalised spectrum of the Gram matrix: min(n_latents, d_model) at most, 1 at least.

    The non-zero spectrum of U Uᵀ is that of Uᵀ U; the smaller of the two is decomposed.
    """
    gram = unit.T @ unit if len(unit) > unit.shape[1] else unit @ unit.T
    spectrum = torch.linalg.eigvalsh(gram.double()).clamp(min=0)
    shares = spectrum / spectrum.sum()
    shares = shares[shares > 1e-9]  # what is smaller is rounding of the float32 products
    return float(torch.exp(-(shares * shares.log()).sum()))


class Nulls:
    """Geometry of random unit dictionaries, computed once per shape (n_latents, d_model) while this object lives."""

    def __init__(self, n_dictionaries: int, device: torch.device):
        self.n_dictionaries, self._device = n_dictionaries, device
        self._known: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}

    def of(self, n_latents: int, d_model: int) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each measure; the draws depend on the shape alone."""
        shape = (n_latents, d_model)
        if shape not in self._known:
            draws = [decoder_geometry(self._draw(*shape, seed)).values for seed in range(self.n_dictionaries)]
            columns = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
            self._known[shape] = {name: (float(c.mean()), float(c.std(ddof=1))) for name, c in columns.items()}
        return self._known[shape]

    def _draw(self, n_latents: int, d_model: int, seed: int) -> Float[Tensor, "n_latents d_model"]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n_latents, d_model, generator=generator).to(self._device)


def redundancy_metrics(
    geometry: Geometry,
    W_enc: Float[Tensor, "d_model n_latents"] | None,
    W_dec: Float[Tensor, "n_latents d_model"],
    nulls: Nulls,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Each measure as {value, null_mean, null_sd, z}, and reasons for what is not defined.

    `W_enc` is None for a transcoder: directions of two hooks are not compared.
    """
    null = nulls.of(*W_dec.shape)
    result: dict[str, Any] = {}
    reasons = {}
    for name, value in geometry.values.items():
        mean, sd = null[name]
        z = (value - mean) / sd if sd > 0 else None
        if z is None:
            reasons[f"redundancy_{name}_z"] = f"all {nulls.n_dictionaries} random dictionaries score {mean:g}"
        result[name] = {"value": value, "null_mean": mean, "null_sd": sd, "z": z}
    result["n_pairs_cosine_above_05"] = geometry.n_pairs
    result["encoder_decoder_cosine"] = None
    if W_enc is None:
        reasons["redundancy_encoder_decoder_cosine"] = (
            "a transcoder's encoder and decoder are directions of two different hooks"
        )
    else:
        result["encoder_decoder_cosine"] = _mean_cosine(W_enc, W_dec)
    return result, reasons


def _mean_cosine(W_enc: Float[Tensor, "d_model n_latents"], W_dec: Float[Tensor, "n_latents d_model"]) -> float:
    """Mean over latents of the cosine between what a latent reads and what it writes."""
    parts = [
        torch.nn.functional.cosine_similarity(read.T.double(), written.double(), dim=1)
        for read, written in zip(W_enc.split(_SLICE, dim=1), W_dec.split(_SLICE), strict=True)
    ]
    return torch.cat(parts).mean().item()


class PairFirings:
    """Counts of rows on which both latents, or either latent, of given pairs fire."""

    def __init__(self, pairs: Int[Tensor, "2 pairs"]):
        self._latents, places = pairs.unique(return_inverse=True)
        self._pairs = places.view(2, -1)
        self._both = torch.zeros(pairs.shape[1], dtype=torch.int64, device=pairs.device)
        self._counts = torch.zeros(len(self._latents), dtype=torch.int64, device=pairs.device)

    def update(self, fired) -> None:
        """Add rows; `fired` is (rows, n_latents), True where a latent is above 0."""
        if not len(self._both):
            return
        mine = fired[:, self._latents].T.contiguous()
        self._counts += mine.sum(1)
        step = max(1, _CHUNK_ELEMENTS // max(1, len(fired)))
        for start in range(0, len(self._both), step):
            first, second = self._pairs[:, start : start + step]
            self._both[start : start + step] += (mine[first] & mine[second]).sum(1)

    def jaccard(self) -> float | None:
        """Mean over pairs of (rows where both fire) / (rows where either fires); None when no pair ever fired."""
        either = (
            self._counts[self._pairs[0]] + self._counts[self._pairs[1]] - self._both if len(self._both) else self._both
        )
        seen = either > 0
        return (self._both[seen].double() / either[seen]).mean().item() if bool(seen.any()) else None


def random_pairs(n_latents: int, n_pairs: int, device: torch.device, seed: int = 0) -> Int[Tensor, "2 pairs"]:
    """Pairs of different latents drawn at random: what firing together looks like without similar decoders."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(n_latents, (n_pairs,), generator=generator)
    offset = torch.randint(1, n_latents, (n_pairs,), generator=generator)
    return torch.stack([first, (first + offset) % n_latents]).to(device)
