"""Document-level bootstrap: tokens of one document are not independent, so documents are what is drawn again."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Sums are kept per group. Above this number of documents, groups of documents are drawn instead of single ones:
# the interval stays valid, and memory stays at MAX_GROUPS x d_model values.
MAX_GROUPS = 1024

_SEED = 0  # one set of draws for all intervals: intervals of two SAEs on one corpus are comparable
_LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Groups:
    """Which group of the bootstrap each document index belongs to; document −1 (none) is a document here."""

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


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], n_groups: int, samples: int
) -> list[float] | None:
    """Percentile 95 % interval [low, high] of a statistic over groups drawn with replacement.

    `statistic` maps how often each group was drawn, (samples, n_groups), to one value per sample. None when there
    is one group only, or a sample has no value (its denominator is 0).
    """
    if n_groups < 2:
        return None
    draws = np.random.Generator(np.random.PCG64(_SEED)).multinomial(n_groups, np.full(n_groups, 1 / n_groups), samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(draws.astype(np.float64))
    if not np.isfinite(values).all():
        return None
    return [float(value) for value in np.quantile(values, _LEVELS)]
