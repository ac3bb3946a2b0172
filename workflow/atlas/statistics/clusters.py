"""Intervals over documents, or other clusters: what is of one document is not independent, so documents are left out.

`cluster_interval` is for a value of one dictionary: corrected for bias, and widened for documents that a sample of few
mostly lacks. `jackknife_interval` is for a paired difference of two dictionaries: about the difference itself, and not
widened, for most of an outlier's effect is in both. benchmarks/coverage.py measures how often intervals hold the truth;
docs/metrics.md and docs/twins.md have the numbers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

# Fewer clusters tell too little of how they vary: docs/twins.md has the coverage at each number.
LEAST_CLUSTERS = 4
# Sums are kept per group. Above this number of documents, groups of documents are clusters instead of single ones: the
# interval stays valid, and memory stays at MAX_GROUPS x d_model values.
MAX_GROUPS = 1024

TOO_FEW = f"too few documents: fewer than {LEAST_CLUSTERS}, or the value is not defined without one of them"
# Real corpora have outlying documents, which a sample of few mostly lacks: Student's t alone held the truth in .85 of
# samples at the worst layer. Half widths are larger by this share up to so many clusters, and by less above.
_WIDER, _WIDER_UP_TO = 0.5, 60
_TAIL = 0.975


@dataclass(frozen=True)
class Groups:
    """Cluster of each document index; document −1 (none) is a document here."""

    documents: Int[np.ndarray, " documents"]

    @classmethod
    def of(cls, documents: Int[np.ndarray, " rows"]) -> "Groups":
        """Groups for the document indices that occur in `documents`."""
        return cls(np.unique(documents))

    @property
    def count(self) -> int:
        """Number of groups."""
        return min(len(self.documents), MAX_GROUPS)

    def index(self, documents: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """Group of each document index."""
        return np.searchsorted(self.documents, documents) % MAX_GROUPS


def cluster_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    n_clusters: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> list[float] | None:
    """95 % interval [low, high] of a statistic of clusters, for the population that they were drawn from.

    `statistic` maps how often each cluster counts, (cases, n_clusters), to one value per case. The jackknife gives
    centre, corrected for bias, and spread; Student's t and `half_width` the rest. The value itself is always inside;
    `bounds` are those of the statistic. None with fewer than `LEAST_CLUSTERS`, or where the value of all clusters, or
    of all but one, is not finite.
    """
    if n_clusters < LEAST_CLUSTERS:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(np.ones((1, n_clusters)))[0]
        without = statistic(1.0 - np.eye(n_clusters))
    if not (np.isfinite(value) and np.isfinite(without).all()):
        return None
    low, high = _interval(value, _pseudo_values(value, without))
    return [float(max(low, bounds[0])), float(min(high, bounds[1]))]


def jackknife_interval(value: float, without: Float[np.ndarray, " clusters"]) -> list[float] | None:
    """Compute the interval [low, high] of a paired difference from its value and the values `without` each cluster.

    Student's t with one degree of freedom less than there are clusters (Tukey's jackknife). None with fewer than
    `LEAST_CLUSTERS`, or where a value is not finite.
    """
    n = len(without)
    if n < LEAST_CLUSTERS or not np.isfinite(value) or not np.isfinite(without).all():
        return None
    reach = float(stdtrit(n - 1, _TAIL)) * _pseudo_values(value, without).std(ddof=1) / math.sqrt(n)
    return [float(value - reach), float(value + reach)]


def ratio_intervals(
    document: Int[np.ndarray, " rows"],
    above: Float[np.ndarray, "rows columns"],
    below: Float[np.ndarray, "rows columns"],
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """95 % intervals (low, high) of the ratios of sums of columns, each as of `cluster_interval`; NaN for none.

    `document` is the document of each row; documents are the clusters. For means `below` is 1 where a row has a value.
    """
    groups = Groups.of(document)
    low, high = np.full((2, above.shape[1]), np.nan)
    if groups.count < LEAST_CLUSTERS:
        return low, high
    of_row = np.zeros((groups.count, len(document)))
    of_row[groups.index(document), np.arange(len(document))] = 1
    tops, bottoms = of_row @ above, of_row @ below
    with np.errstate(divide="ignore", invalid="ignore"):
        value = tops.sum(0) / bottoms.sum(0)
        without = (tops.sum(0) - tops) / (bottoms.sum(0) - bottoms)
    known = np.isfinite(value) & np.isfinite(without).all(0)
    low[known], high[known] = _interval(value[known], _pseudo_values(value[known], without[:, known]))
    return low, high


def half_width(n_clusters: int) -> float:
    """Half the width of an interval over so many clusters, in standard errors."""
    wider = 1.0 + _WIDER * min(1.0, _WIDER_UP_TO / n_clusters)
    return wider * float(stdtrit(n_clusters - 1, _TAIL))


def with_clusters(measures: Mapping[str, Any], n_clusters: int | None) -> dict[str, Any]:
    """The measures, and behind each ``<name>_interval`` over how many clusters it is, as ``<name>_clusters``."""
    result = {}
    for name, value in measures.items():
        result[name] = value
        if name.endswith("_interval"):
            result[f"{name.removesuffix('_interval')}_clusters"] = n_clusters
    return result


def _pseudo_values(value: Any, without: np.ndarray) -> np.ndarray:
    """Tukey's: their mean is the value corrected for bias, their spread that of independent clusters."""
    n = len(without)
    return n * value - (n - 1) * without


def _interval(value: Any, pseudo: np.ndarray) -> tuple[Any, Any]:
    """Return the ends of a widened interval, of one statistic or of one per column."""
    half = half_width(len(pseudo)) * pseudo.std(0, ddof=1) / math.sqrt(len(pseudo))
    return np.minimum(pseudo.mean(0) - half, value), np.maximum(pseudo.mean(0) + half, value)
