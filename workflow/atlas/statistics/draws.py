"""Documents drawn with replacement, ahead of the numbers: many statistics of one pass share one set of draws."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

# One seed for all: intervals of two dictionaries on one corpus are comparable.
_SEED = 0
# A draw of documents may leave a statistic without a value. With more such draws than this share, what is left says
# nothing of the others, and there is no interval.
_MAX_EMPTY = 0.05
_LEVELS = (0.025, 0.975)


def document_draws(n_groups: int, samples: int) -> Float[np.ndarray, "groups samples"]:
    """Return how often each group of documents is drawn in each sample."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), samples).T.astype(np.float32)


def interval(values: Float[np.ndarray, " samples"], n_groups: int) -> list[float] | None:
    """Percentile 95 % interval [low, high]; None with fewer than two groups, or when a draw has no value."""
    if n_groups < 2 or not np.isfinite(values).all():
        return None
    return [float(value) for value in np.quantile(values, _LEVELS)]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A measure, and its value in every draw of documents (NaN where a draw has none of its examples)."""

    value: float
    draws: Float[np.ndarray, " samples"]

    @property
    def interval(self) -> list[float] | None:
        """95 % percentile interval over the draws that have a value; None when too few have one."""
        return drawn_interval(self.draws)

    def __sub__(self, other: "Drawn") -> "Drawn":
        return Drawn(self.value - other.value, self.draws - other.draws)

    def less(self, number: float) -> "Drawn":
        """The measure less a number that is known."""
        return Drawn(self.value - number, self.draws - number)


def drawn_interval(draws: Float[np.ndarray, " samples"]) -> list[float] | None:
    """95 % percentile interval; None when more than a twentieth of the draws have no value."""
    known = draws[np.isfinite(draws)]
    if len(known) < (1 - _MAX_EMPTY) * len(draws):
        return None
    return [float(value) for value in np.quantile(known, _LEVELS)]


def drawn_share(found: Bool[np.ndarray, " trials"], draws: Float[np.ndarray, "trials samples"]) -> Drawn:
    """Share of trials in which something was found, and in every draw with each trial as often as it was drawn."""
    total = draws.sum(0)
    drawn = np.divide(found.astype(np.float32) @ draws, total, out=np.full(len(total), np.nan), where=total > 0)
    return Drawn(float(found.mean()), drawn)


def drawn_auc(
    won: Float[np.ndarray, "positives negatives"],
    positive_draws: Float[np.ndarray, "positives samples"],
    negative_draws: Float[np.ndarray, "negatives samples"],
) -> Drawn:
    """Mean of `won` over pairs, and in every draw with each example as often as its document was drawn."""
    above = np.einsum("ps,ps->s", positive_draws, won @ negative_draws)
    pairs = positive_draws.sum(0) * negative_draws.sum(0)
    draws = np.divide(above, pairs, out=np.full(len(pairs), np.nan, np.float64), where=pairs > 0)
    return Drawn(float(won.mean(dtype=np.float64)), draws)
