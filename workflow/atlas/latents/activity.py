"""Measure when latents fire: counts, masses by class of token, the token they prefer. docs/metrics.md, section 6."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Real
from jaxtyping import Integer as Int

from atlas.codes.store import Codes, LatentEntries
from atlas.evaluation.sparsity import DENSE_RATE
from atlas.latents.text import CorpusText, ratio
from atlas.latents.token_classes import CLASSES, WORD
from atlas.statistics.draws import document_draws, draws_interval

# A latent is called a formatting artefact from this many firings on, and by position only with so many of them at the
# first position: of 10 random firings on prose, 9 outside of words happen once in ten thousand.
MIN_FIRINGS, MIN_FIRST = 10, 3
NONWORD_LIMIT, FIRST_LIFT_LIMIT = 0.8, 10.0


@dataclass(frozen=True, eq=False)
class Activity:
    """Sums over the counted rows of a corpus, one per latent; `by_group` counts firings per group of documents.

    `mass` is the sum of activations, `class_mass` the same by class of token, `first_*` at the first counted position
    of a context, `massive_firings` on massive activations, `top_token` the token with the largest share of the mass
    (−1: silent). `intervals` are those of the means over latents.
    """

    n_firings: Int[np.ndarray, " n_latents"]
    mass: Float[np.ndarray, " n_latents"]
    largest: Float[np.ndarray, " n_latents"]
    class_mass: Float[np.ndarray, "n_latents classes"]
    first_firings: Int[np.ndarray, " n_latents"]
    first_mass: Float[np.ndarray, " n_latents"]
    massive_firings: Int[np.ndarray, " n_latents"]
    top_token: Int[np.ndarray, " n_latents"]
    top_token_mass: Float[np.ndarray, " n_latents"]
    by_group: Int[np.ndarray, "n_latents groups"]
    intervals: dict[str, list[float] | None] = field(default_factory=dict)


def measure_activity(codes: Codes, text: CorpusText, samples: int) -> Activity:
    """One pass over the codes, a few latents at a time."""
    parts, means = [], _DrawnMeans(text, samples)
    for block in codes.blocks():
        entries = block.only(text.counted[block.row])
        sums = _group_sums(entries, text)
        means.add(sums)
        parts.append(_measure(entries, text, sums))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Activity(**columns, intervals=means.intervals())


def formatting_artefact(
    n_firings: np.ndarray, first_firings: np.ndarray, nonword: np.ndarray, first_lift: np.ndarray
) -> Float[np.ndarray, "..."]:
    """1 for a formatting artefact, 0 for none, NaN where there are fewer than MIN_FIRINGS firings."""
    by_position = (first_lift > FIRST_LIFT_LIMIT) & (first_firings >= MIN_FIRST)
    return np.where(n_firings >= MIN_FIRINGS, (nonword > NONWORD_LIMIT) | by_position, np.nan)


def _group_sums(entries: LatentEntries, text: CorpusText) -> dict[str, Real[np.ndarray, "latents groups"]]:
    """Firings, first-position firings and masses of every latent in every group of documents."""
    n_groups = text.groups.count
    place = entries.latent * n_groups + text.group[entries.row]
    first, classes, value = text.first[entries.row], text.classes[entries.row], entries.value.astype(np.float64)

    def total(weights: np.ndarray | None) -> np.ndarray:
        return np.bincount(place, weights, entries.n_latents * n_groups).reshape(-1, n_groups)

    sums = {"firings": total(None), "first_firings": total(first), "first_mass": total(value * first)}
    sums["massive_firings"] = total(text.massive[entries.row])
    return sums | {name: total(value * (classes == index)) for index, name in enumerate(CLASSES)}


def _measure(entries: LatentEntries, text: CorpusText, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    latent, value = entries.latent, entries.value
    largest = np.zeros(entries.n_latents, np.float32)
    np.maximum.at(largest, latent, value)
    top_token, top_mass = _top_tokens(entries, text.tokens)
    class_mass = np.stack([sums[name].sum(1) for name in CLASSES], axis=1)
    return {
        "n_firings": sums["firings"].sum(1).astype(np.int64),
        "mass": class_mass.sum(1),
        "largest": largest,
        "class_mass": class_mass,
        "first_firings": sums["first_firings"].sum(1).astype(np.int64),
        "first_mass": sums["first_mass"].sum(1),
        "massive_firings": sums["massive_firings"].sum(1).astype(np.int64),
        "top_token": top_token,
        "top_token_mass": top_mass,
        "by_group": sums["firings"].astype(np.uint32),
    }


def _top_tokens(entries: LatentEntries, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The token with the largest mass of each latent (of equal ones the lowest id), and that mass."""
    token, mass = np.full(entries.n_latents, -1), np.zeros(entries.n_latents)
    if not len(entries.row):
        return token, mass
    pairs = entries.latent.astype(np.int64) << 32 | tokens[entries.row].astype(np.int64)
    pairs, place = np.unique(pairs, return_inverse=True)
    masses = np.bincount(place, entries.value.astype(np.float64))
    order = np.lexsort((pairs & 0xFFFFFFFF, -masses, pairs >> 32))
    latents, first = np.unique(pairs[order] >> 32, return_index=True)
    best = order[first]
    token[latents], mass[latents] = pairs[best] & 0xFFFFFFFF, masses[best]
    return token, mass


class _DrawnMeans:
    """The means over latents of what is a number of each latent, for every draw of documents."""

    def __init__(self, text: CorpusText, samples: int):
        self._n_groups = text.groups.count
        # The first column is all documents, each once: the value itself.
        self._draws = np.column_stack([np.ones(self._n_groups), document_draws(self._n_groups, samples)])
        first = np.bincount(text.group[text.first], minlength=self._n_groups)
        self._first_rate = ratio(first @ self._draws, text.tokens_of_group @ self._draws)
        self._tokens = text.tokens_of_group @ self._draws
        names = ("artefact_share", "dense_share", "massive_share", *(f"mass_{name}" for name in CLASSES))
        self._sums = {name: np.zeros(1 + samples) for name in names}
        self._counts = {name: np.zeros(1 + samples) for name in names}

    def add(self, sums: dict[str, np.ndarray]) -> None:
        """Add some latents, given by their sums per group of documents."""
        drawn = {name: values @ self._draws for name, values in sums.items()}
        mass = sum((drawn[name] for name in CLASSES[1:]), drawn[CLASSES[0]])
        shares = {name: ratio(drawn[name], mass) for name in CLASSES}
        lift = ratio(ratio(drawn["first_mass"], mass), np.broadcast_to(self._first_rate, mass.shape))
        artefact = formatting_artefact(drawn["firings"], drawn["first_firings"], 1 - shares[CLASSES[WORD]], lift)
        means = {
            "artefact_share": artefact,
            "dense_share": (drawn["firings"] > DENSE_RATE * self._tokens).astype(float),
            "massive_share": ratio(drawn["massive_firings"], drawn["firings"]),
        }
        for name, values in (means | {f"mass_{key}": share for key, share in shares.items()}).items():
            self._sums[name] += np.nansum(values, axis=0)
            self._counts[name] += (~np.isnan(values)).sum(0)

    def intervals(self) -> dict[str, list[float] | None]:
        """The interval of each mean."""
        means = {name: ratio(self._sums[name], self._counts[name]) for name in self._sums}
        return {name: draws_interval(each[0], each[1:], self._n_groups, (0.0, 1.0)) for name, each in means.items()}
