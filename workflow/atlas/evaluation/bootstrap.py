"""Intervals over documents, or other clusters: what is of one document is not independent, so documents are left out.

benchmarks/coverage.py measures how often the intervals hold the truth; docs/metrics.md has the numbers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from atlas.intervals import LEAST_CLUSTERS

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
    """Which cluster each document index belongs to; document −1 (none) is a document here."""

    documents: np.ndarray

    @classmethod
    def of(cls, documents: np.ndarray) -> "Groups":
        """Groups for the document indices that occur in `documents`."""
        return cls(np.unique(documents))

    @property
    def count(self) -> int:
        """Number of groups."""
        return min(len(self.documents), MAX_GROUPS)

    def index(self, documents: np.ndarray) -> np.ndarray:
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
    pseudo = n_clusters * value - (n_clusters - 1) * without
    half = half_width(n_clusters) * pseudo.std(ddof=1) / math.sqrt(n_clusters)
    low, high = min(pseudo.mean() - half, value), max(pseudo.mean() + half, value)
    return [float(max(low, bounds[0])), float(min(high, bounds[1]))]


def half_width(n_clusters: int) -> float:
    """Half the width of an interval over so many clusters, in standard errors."""
    wider = 1.0 + _WIDER * min(1.0, _WIDER_UP_TO / n_clusters)
    return wider * float(student.ppf(_TAIL, n_clusters - 1))


def ratio_intervals(document: np.ndarray, above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals (low, high) of the ratios of sums of columns, (rows, columns) above and below; NaN for none.

    `document` is the document of each row; documents are the clusters, as in `cluster_interval`. For means `below` is 1
    where a row has a value.
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
    pseudo = groups.count * value - (groups.count - 1) * without
    half = half_width(groups.count) * pseudo.std(0, ddof=1) / math.sqrt(groups.count)
    known = np.isfinite(value) & np.isfinite(without).all(0)
    low[known] = np.minimum(pseudo.mean(0) - half, value)[known]
    high[known] = np.maximum(pseudo.mean(0) + half, value)[known]
    return low, high


def with_clusters(measures: Mapping[str, Any], n_clusters: int | None) -> dict[str, Any]:
    """The measures, and behind each ``<name>_interval`` over how many clusters it is, as ``<name>_clusters``."""
    result = {}
    for name, value in measures.items():
        result[name] = value
        if name.endswith("_interval"):
            result[f"{name.removesuffix('_interval')}_clusters"] = n_clusters
    return result
