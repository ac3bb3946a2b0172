"""Estimates with their values in all draws of documents: those of two SAEs on the same documents can be subtracted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from atlas.statistics.draws import document_draws, draws_interval

SHARE = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number of all documents, and of each draw of documents; NaN where it has no value. `bounds` are its limits."""

    value: float
    draws: Float[np.ndarray, " samples"]
    n_groups: int
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @classmethod
    def of(
        cls,
        statistic: Callable[[np.ndarray], np.ndarray],
        n_groups: int,
        samples: int,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> "Estimate":
        """`statistic` maps how often each group of documents counts, (samples, groups), to (samples,) values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = statistic(document_draws(n_groups, samples).T.astype(np.float64))
            value = statistic(np.ones((1, n_groups)))[0]
        return cls(float(value), draws, n_groups, bounds)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference; both must be of the same documents."""
        return Estimate(self.value - other.value, self.draws - other.draws, self.n_groups)

    @property
    def interval(self) -> list[float] | None:
        """95 % interval of `draws_interval`."""
        return draws_interval(self.value, self.draws, self.n_groups, self.bounds)


def per_group(values: Float[np.ndarray, " rows"], group: np.ndarray, n_groups: int) -> Float[np.ndarray, " groups"]:
    """Sums of values by group."""
    return np.bincount(group, values, n_groups).astype(np.float64)


def ratio_of(above: np.ndarray, below: np.ndarray, group: np.ndarray, n_groups: int, samples: int) -> Estimate:
    """The ratio of two sums over rows."""
    top, bottom = per_group(above, group, n_groups), per_group(below, group, n_groups)
    return Estimate.of(lambda draws: (draws @ top) / (draws @ bottom), n_groups, samples)
