"""Latents of numbers, ratios and names: how many of a dictionary's, against kinds of tokens that stand elsewhere."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.codes.store import Codes
from atlas.finance.estimates import Estimate
from atlas.finance.kinds import in_group
from atlas.latents.drift import FiringCounts
from atlas.latents.text import CorpusText, ratio
from atlas.statistics.draws import document_draws

COUNTED_GROUPS = ("number", "ratio", "entity")
_SEED = 0
_COUNT = (0.0, np.inf)


@dataclass(frozen=True)
class Rule:
    """Condition for a latent to be of a kind: a share of its mass there above `min_mass`, and `min_firings` firings."""

    min_mass: float
    min_firings: int

    def holds(self, share: np.ndarray, firings: np.ndarray) -> np.ndarray:
        """Elementwise; a share that is NaN is none."""
        return (np.nan_to_num(share) > self.min_mass) & (firings >= self.min_firings)


@dataclass(frozen=True, eq=False)
class LatentKinds:
    """Latents of one dictionary on one corpus: which are of a group of kinds, how many, and how many by chance."""

    is_kind: dict[str, np.ndarray]
    counts: dict[str, Estimate]
    null: dict[str, Float[np.ndarray, " shifts"]]


def latent_kinds(
    codes: Codes, text: CorpusText, kinds: Int[np.ndarray, " rows"], rule: Rule, shifts: int, samples: int
) -> LatentKinds:
    """Counts of latents by group of kinds.

    The null moves the kinds along the counted rows, all by one random distance and the end joined to the beginning:
    runs of kinds and bursts of firings stay what they are, and only what ties them together is lost.
    """
    draws = document_draws(text.groups.count, samples)
    marked = {name: in_group(kinds, name) & text.counted for name in COUNTED_GROUPS}
    distances = _distances(text.n_tokens, shifts)
    is_kind: dict[str, list[np.ndarray]] = {name: [] for name in marked}
    drawn = {name: np.zeros(samples) for name in marked}
    null = {name: np.zeros(shifts) for name in marked}
    place = np.cumsum(text.counted) - 1  # of each counted row among them
    for block in codes.blocks():
        entries = block.only(text.counted[block.row])
        value, latent, n = entries.value.astype(np.float64), entries.latent, entries.n_latents
        firings, mass = np.bincount(latent, minlength=n), np.bincount(latent, value, n)
        by_group = _by_group(latent, text.group[entries.row], n, text.groups.count)
        drawn_firings, drawn_mass = by_group(None) @ draws, by_group(value) @ draws
        for name, mark in marked.items():
            flags = mark[text.counted]
            own = flags[place[entries.row]]
            is_kind[name].append(rule.holds(ratio(np.bincount(latent, value * own, n), mass), firings))
            share = ratio(by_group(value * own) @ draws, drawn_mass)
            drawn[name] += rule.holds(share, drawn_firings).sum(0)
            for number, distance in enumerate(distances):
                moved = np.bincount(latent, value * np.roll(flags, distance)[place[entries.row]], n)
                null[name][number] += rule.holds(ratio(moved, mass), firings).sum()
    found = {name: np.concatenate(parts) for name, parts in is_kind.items()}
    counts = {name: Estimate(float(found[name].sum()), drawn[name], text.groups.count, _COUNT) for name in marked}
    return LatentKinds(found, counts, null)


def firings_of(codes: Codes, text: CorpusText) -> FiringCounts:
    """Return how often each latent fires on the counted rows of each group of documents."""
    parts = []
    for block in codes.blocks():
        entries = block.only(text.counted[block.row])
        parts.append(_by_group(entries.latent, text.group[entries.row], entries.n_latents, text.groups.count)(None))
    return FiringCounts(np.concatenate(parts).astype(np.int64), text.tokens_of_group)


def _distances(n_rows: int, shifts: int) -> Int[np.ndarray, " shifts"]:
    """At least a tenth of the rows, either way."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    return generator.integers(n_rows // 10, n_rows - n_rows // 10, shifts)


def _by_group(latent: np.ndarray, group: np.ndarray, n_latents: int, n_groups: int):
    """Sums of weights (None: counts) by latent and group of documents."""
    place = latent * n_groups + group

    def total(weights: np.ndarray | None) -> Float[np.ndarray, "latents groups"]:
        return np.bincount(place, weights, n_latents * n_groups).reshape(n_latents, n_groups).astype(np.float64)

    return total
