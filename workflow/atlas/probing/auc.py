"""Area under the ROC curve with the variance of DeLong, DeLong and Clarke-Pearson (1988), also of differences."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

_Z = 1.959963984540054  # 97.5 % point of the standard normal


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


def normal_interval(value: float, variance: float, low: float, high: float) -> list[float] | None:
    """95 % interval, cut at what the value can be; None when the variance is 0: nothing is known of the noise."""
    if variance <= 0:
        return None
    half = _Z * variance**0.5
    return [max(low, value - half), min(high, value + half)]
