"""Area under the ROC curve: with the variance of DeLong, DeLong and Clarke-Pearson (1988), of ranks, and of pairs.

`auc_interval` is for few examples. Draws of examples give an interval without width where all are placed alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import rankdata

_TAIL = 0.975
_INSIDE = 1e-6


@dataclass(frozen=True)
class Auc:
    """An AUC and its placements: per positive the share of negatives below it, per negative of positives above it."""

    value: float
    positives: Float[np.ndarray, " positives"]
    negatives: Float[np.ndarray, " negatives"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, " rows"], labels: Bool[np.ndarray, " rows"]) -> "Auc":
        """From scores, ties counting half; labels must have both classes."""
        high, low = scores[labels], scores[~labels]
        ranks = rankdata(np.concatenate([high, low]))
        above = (ranks[: len(high)] - rankdata(high)) / len(low)
        below = 1 - (ranks[len(high) :] - rankdata(low)) / len(high)
        return cls(float(above.mean()), above, below)

    @property
    def variance(self) -> float:
        """Sampling variance over positives and negatives; 0 when all are placed alike, as at an AUC of 1."""
        return _variance(self.positives, self.negatives)

    def variance_of_difference(self, other: "Auc") -> float:
        """Of ``self − other``, both on the same rows."""
        return _variance(self.positives - other.positives, self.negatives - other.negatives)


def _variance(positives: np.ndarray, negatives: np.ndarray) -> float:
    return float(positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives))


def auc_interval(value: float, n_positives: int, n_negatives: int) -> list[float]:
    """95 % interval [low, high] of an AUC over so many independent positives and negatives.

    Newcombe's score interval (Statistics in Medicine 25, 2006, page 559, method 5), with Student's t of the smaller
    class: values whose distance from `value` is t standard errors under Hanley and McNeil's variance. It has a width at
    0 and 1 too. benchmarks/coverage.py measures how often it holds the truth.
    """
    reach = float(stdtrit(max(min(n_positives, n_negatives) - 1, 1), _TAIL))
    pooled = (n_positives + n_negatives) / 2 - 1

    def beyond(truth: float) -> float:
        spread = 1 + pooled * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return (truth - value) ** 2 - reach**2 * truth * (1 - truth) * spread / (n_positives * n_negatives)

    # The variance is 0 at both ends, where a root of its own lies: the other root is looked for inside.
    low, high = max(value, _INSIDE), min(value, 1 - _INSIDE)
    return [
        float(brentq(beyond, _INSIDE**2, high)) if value > 0 and beyond(high) < 0 < beyond(_INSIDE**2) else 0.0,
        float(brentq(beyond, low, 1 - _INSIDE**2)) if value < 1 and beyond(low) < 0 < beyond(1 - _INSIDE**2) else 1.0,
    ]


def column_aucs(
    scores: Float[np.ndarray, "rows columns"], labels: Bool[np.ndarray, " rows"]
) -> Float[np.ndarray, " columns"]:
    """Compute the AUC of each column of scores for class True, ties counting half; labels must have both classes."""
    areas = area_of_ranks(rankdata(scores, axis=0)[labels].sum(axis=0), int(labels.sum()), len(labels))
    return np.asarray(areas)


def area_of_ranks(
    rank_sum: Float[np.ndarray, "*columns"] | float, n_true: int, n: int
) -> Float[np.ndarray, "*columns"] | float:
    """AUC from the sum of the ranks, 1 to `n`, of class True; NaN where one class is missing."""
    if n_true in (0, n):
        return rank_sum * np.nan
    return (rank_sum - n_true * (n_true + 1) / 2) / (n_true * (n - n_true))


def wins(
    positives: Float[np.ndarray, "*many positives"], negatives: Float[np.ndarray, "*many negatives"]
) -> Float[np.ndarray, "*many positives negatives"]:
    """1 where a positive scores above a negative, .5 for equal ones or where either has no answer, else 0."""
    difference = positives[..., :, None] - negatives[..., None, :]
    return np.where(np.isnan(difference), 0.5, 0.5 * (1 + np.sign(difference))).astype(np.float32)
