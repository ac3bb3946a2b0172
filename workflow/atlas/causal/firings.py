"""Choose the firings on which latents are measured, and the null beside each."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.codes.store import Codes

# Directions that are nearer than this are copies of a latent rather than other ones.
_MAX_COSINE = 0.5
# Parts of the seed of draws.
_ORDER, _DIRECTION, _SILENT = 11, 12, 13


@dataclass(frozen=True, eq=False)
class MeasuredFirings:
    """Firings of one latent that are measured: `row` in the corpus, its document, and the half that it belongs to.

    Tokens are chosen on one half of the documents, and their numbers are those of the other. `n_firings` counts all
    that could have been drawn, `largest` is the largest activation among them.
    """

    latent: int
    row: Int[np.ndarray, " firings"]
    document: Int[np.ndarray, " firings"]
    half: Int[np.ndarray, " firings"]
    n_firings: int
    largest: float
    strongest_row: int


def choose_firings(
    codes: Codes, allowed: Bool[np.ndarray, " rows"], latents: Int[np.ndarray, " latents"], count: int, seed: int
) -> list[MeasuredFirings]:
    """At most `count` firings of each latent on `allowed` rows, drawn by chance, of as many documents as there are.

    A latent that never fires there gets none.
    """
    found = []
    for latent in latents.tolist():
        entries = codes.latents(latent, latent + 1)
        kept = allowed[entries.row]
        row, value = entries.row[kept].astype(np.int64), entries.value[kept]
        order = np.random.Generator(np.random.PCG64([seed, latent, _ORDER])).permutation(len(row))
        drawn = row[order]
        chosen = np.sort(drawn[np.argsort(_times_before(codes.document[drawn]), kind="stable")[:count]])
        document = codes.document[chosen].astype(np.int64)
        half = np.searchsorted(np.unique(document), document) % 2
        strongest = int(row[value.argmax()]) if len(row) else -1
        found.append(MeasuredFirings(latent, chosen, document, half, len(row), float(value.max(initial=0)), strongest))
    return found


def _times_before(document: Int[np.ndarray, " firings"]) -> Int[np.ndarray, " firings"]:
    """Count for each firing how many earlier ones are of the same document."""
    order = np.argsort(document, kind="stable")
    ordered = document[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1]) if len(ordered) else np.zeros(0, np.int64)
    place = np.arange(len(ordered)) - np.repeat(begins, np.diff(np.append(begins, len(ordered))))
    found = np.empty(len(document), np.int64)
    found[order] = place
    return found


def other_latents(
    W_dec: Float[Tensor, "n_latents d_target"], n_firings: Int[np.ndarray, " n_latents"], latents: np.ndarray
) -> Int[np.ndarray, " latents"]:
    """Find for each of `latents` the latent with the nearest firing rate that is no copy of it; -1 if there is none.

    `n_firings` are those of the whole dictionary.
    """
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1).cpu()
    rate = np.log(np.maximum(n_firings, 1))
    found = np.full(len(latents), -1)
    for place, latent in enumerate(latents.tolist()):
        distance = np.abs(rate - rate[latent])
        distance[(n_firings == 0) | ((unit @ unit[latent]).abs().numpy() > _MAX_COSINE)] = np.inf
        distance[latent] = np.inf
        if np.isfinite(distance).any():
            found[place] = int(distance.argmin())
    return found


def random_direction(latent: int, row: int, width: int, seed: int) -> Float[np.ndarray, " width"]:
    """Draw a unit vector, anew for each firing: the direction of a latent's null."""
    drawn = np.random.Generator(np.random.PCG64([seed, latent, row, _DIRECTION])).standard_normal(width)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def silent_position(silent: Int[np.ndarray, " positions"], latent: int, row: int, seed: int) -> int | None:
    """Draw a position where a latent does not fire; None if it fires on all."""
    if not len(silent):
        return None
    return int(silent[np.random.Generator(np.random.PCG64([seed, latent, row, _SILENT])).integers(len(silent))])
