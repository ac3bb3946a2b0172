"""Document-level bootstrap: tokens of one document are not independent, so documents are what is drawn again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

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
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(_draws(n_groups, samples))
    if not np.isfinite(values).all():
        return None
    return [float(value) for value in np.quantile(values, _LEVELS)]


def ratio_intervals(
    document: np.ndarray, above: np.ndarray, below: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals (low, high) of the ratios of sums of columns, (rows, columns) above and below; NaN for none.

    `document` is the document of each row; documents are drawn. For means `below` is 1 where a row has a value.
    """
    groups = Groups.of(document)
    low, high = np.full((2, above.shape[1]), np.nan)
    if groups.count < 2:
        return low, high
    of_row = np.zeros((groups.count, len(document)))
    of_row[groups.index(document), np.arange(len(document))] = 1
    draws = _draws(groups.count, samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (draws @ (of_row @ above)) / (draws @ (of_row @ below))
    known = np.isfinite(values).all(0)
    low[known], high[known] = np.quantile(values[:, known], _LEVELS, axis=0)
    return low, high


@lru_cache(maxsize=64)
def _draws(n_groups: int, samples: int) -> np.ndarray:
    """How often each group is drawn, (samples, n_groups), float64: the same for all statistics."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    draws = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), samples).astype(np.float64)
    draws.flags.writeable = False
    return draws
