"""Measure how much of a known truth a dictionary found. Normative: docs/planted_truth.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int
from scipy.sparse import csr_array
from torch import Tensor

from atlas.errors import EvaluationError
from atlas.planted.truth import Truth
from atlas.stability.matching import largest_cosines, match
from atlas.statistics.clusters import TOO_FEW, cluster_interval, with_clusters

# A feature is found when its one-to-one partner's decoder direction has a larger cosine than this.
FOUND_COSINE = 0.9
# What arXiv 2602.14111 counts: the nearest latent, several features may share one.
NEAREST_COSINE = 0.8


@dataclass(frozen=True)
class Partners:
    """The latent of each scored feature, one to one with the largest sum of cosines, and their cosines.

    `nearest` is the largest cosine of a feature to any latent. A direction that points the other way is another one:
    magnitudes and latents are never negative.
    """

    latent: Int[np.ndarray, " scored"]
    cosine: Float[np.ndarray, " scored"]
    nearest: Float[np.ndarray, " scored"]

    @classmethod
    def of(cls, directions: Float[Tensor, "scored d_model"], W_dec: Float[Tensor, "n_latents d_model"]) -> "Partners":
        """Find partners; raises EvaluationError for fewer latents than features: some could have no partner."""
        if len(W_dec) < len(directions):
            raise EvaluationError(
                f"{len(directions)} features are looked for, but the dictionary has {len(W_dec)} latents and cannot "
                "hold them all; give the recipe more latents, or set scored_features of the planted source"
            )
        unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
        found = match(directions.float(), unit, "exact")
        nearest = largest_cosines(directions.float(), unit)[0]
        return cls(found.partner, found.cosine, nearest.double().cpu().numpy())

    @property
    def found(self) -> np.ndarray:
        """Return which features were found."""
        return self.cosine > FOUND_COSINE

    def measures(self, frequency: Float[np.ndarray, " scored"]) -> dict[str, float]:
        """Compute measures of directions: share found, their share of all firings, mean cosine of partners."""
        return {
            "share_found": float(self.found.mean()),
            "share_of_firings_found": float(frequency[self.found].sum() / frequency.sum()),
            "mcc": float(self.cosine.mean()),
            "share_nearest_above_08": float((self.nearest > NEAREST_COSINE).mean()),
        }


class FiringMatch:
    """Firing and strength of latents beside those of their features, summed over rows."""

    def __init__(self, partners: Partners, n_groups: int):
        self._latent = partners.latent
        self._n_rows = 0
        names = ("both", "latent", "feature", "a", "aa", "b", "bb", "ab")
        self._sums = {name: np.zeros(len(self._latent)) for name in names}
        self._groups = np.zeros((3, n_groups))  # both, latent, feature

    def update(
        self,
        latents: Float[Tensor, "rows n_latents"],
        codes: csr_array,
        groups: Int[np.ndarray, " rows"],
    ) -> None:
        """Add rows: all latents, the true magnitudes of the scored features, and each row's cluster."""
        mine = csr_array(latents.double().cpu().numpy())[:, self._latent]
        true = codes.astype(np.float64)
        both = mine.multiply(true).tocsr()
        self._n_rows += len(latents)
        for name, values, powers in (("a", mine, "aa"), ("b", true, "bb")):
            self._sums[name] += _column_sums(values, values.data)
            self._sums[powers] += _column_sums(values, values.data**2)
        self._sums["ab"] += _column_sums(both, both.data)
        for place, (name, values) in enumerate((("both", both), ("latent", mine), ("feature", true))):
            fires = values.data > 0
            self._sums[name] += _column_sums(values, fires)
            per_row = np.bincount(np.repeat(groups, np.diff(values.indptr)), fires, self._groups.shape[1])
            self._groups[place] += per_row

    def measures(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Precision, recall, F1 and correlation over the features that fired, and pooled over firings; with reasons.

        A latent that stays silent where its feature fires has precision, recall and correlation 0.
        """
        sums = self._sums
        tested = sums["feature"] > 0
        result: dict[str, Any] = {"n_tested": int(tested.sum()), "n_rows": self._n_rows}
        names = ("mcc_firing", "precision", "recall", "f1", "precision_pooled", "recall_pooled")
        if not tested.any():
            reason = f"no scored feature fires on {self._n_rows} rows"
            names += ("precision_pooled_interval", "recall_pooled_interval")
            return with_clusters(result | dict.fromkeys(names), self._groups.shape[1]), dict.fromkeys(names, reason)
        both, latent, feature = (sums[name][tested] for name in ("both", "latent", "feature"))
        precision = np.divide(both, latent, out=np.zeros_like(both), where=latent > 0)
        result |= {
            "mcc_firing": float(self._correlation(sums)[tested].mean()),
            "precision": float(precision.mean()),
            "recall": float((both / feature).mean()),
            "f1": float((2 * both / (latent + feature)).mean()),
        }
        reasons = {}
        both, latent, feature = self._groups
        for name, below in (("precision_pooled", latent), ("recall_pooled", feature)):
            result[name] = float(both.sum() / below.sum()) if below.sum() else None
            result[f"{name}_interval"] = self._interval(both, below)
            if result[name] is None:
                reasons |= dict.fromkeys((name, f"{name}_interval"), "no partner of a feature ever fires")
            elif result[f"{name}_interval"] is None:
                reasons[f"{name}_interval"] = TOO_FEW
        return with_clusters(result, self._groups.shape[1]), reasons

    def _interval(self, both: np.ndarray, below: np.ndarray) -> list[float] | None:
        if not below.sum():
            return None
        return cluster_interval(lambda draws: (draws @ both) / (draws @ below), len(below), (0.0, 1.0))

    def _correlation(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        """Pearson correlation of a latent and its feature; 0 where one of them does not vary."""
        n = self._n_rows
        product = n * sums["ab"] - sums["a"] * sums["b"]
        names = (("a", "aa"), ("b", "bb"))
        spread = [np.maximum(n * sums[square] - sums[name] ** 2, 0) for name, square in names]
        # Below the rounding of float64 sums a variance is 0.
        varies = [one > 1e-12 * n * sums[square] for one, (_, square) in zip(spread, names, strict=True)]
        known = varies[0] & varies[1]
        return np.divide(product, np.sqrt(spread[0] * spread[1]), out=np.zeros_like(product), where=known)


def _column_sums(matrix: csr_array, values: np.ndarray) -> np.ndarray:
    """Sum of `values`, one per stored entry, over each column."""
    return np.bincount(matrix.indices, values, matrix.shape[1])


@dataclass(frozen=True)
class Chance:
    """Scores of random dictionaries of a shape against a truth: the floor of every measure of directions."""

    directions: Float[Tensor, "scored d_model"]
    frequency: Float[np.ndarray, " scored"]
    n_latents: int
    draws: int

    @cached_property
    def measures(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each measure over the draws, which depend on the shape alone."""
        found: Sequence[dict[str, float]] = [self._draw(seed) for seed in range(self.draws)]
        columns = {name: np.array([one[name] for one in found]) for name in found[0]}
        return {name: (float(c.mean()), float(c.std(ddof=1))) for name, c in columns.items()}

    def _draw(self, seed: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(self.n_latents, self.directions.shape[1], generator=generator)
        return Partners.of(self.directions, random).measures(self.frequency)


def most_frequent(truth: Truth, n_scored: int) -> Int[np.ndarray, " scored"]:
    """List the features that are looked for: the `n_scored` most frequent ones, in that order."""
    return np.argsort(-truth.frequency, kind="stable")[:n_scored]
