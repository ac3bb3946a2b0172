"""Documents drawn with replacement, ahead of the numbers: many statistics of one pass share one set of draws.

Draws serve where leaving out one document does not: counts of latents beyond a limit jump, and where no latent is close
to it, the jackknife's interval has no width. `draws_interval` takes bias and standard error from the draws, and its
width from `half_width`, as `cluster_interval` does. Scores of labels have percentiles of draws (`Drawn.interval`),
which are too narrow where documents are few.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from atlas.statistics.clusters import LEAST_CLUSTERS, half_width

# One seed for all: values of two dictionaries on one corpus can be subtracted, draw by draw.
_SEED = 0
# A draw of documents may leave a statistic without a value. With more such draws than this share, what is left says
# nothing of the others, and there is no interval.
_MAX_EMPTY = 0.05
_LEVELS = (0.025, 0.975)
NO_INTERVAL = f"fewer than {LEAST_CLUSTERS} documents, or more than a twentieth of the draws of documents have no value"


def document_draws(n_groups: int, samples: int) -> Float[np.ndarray, "groups samples"]:
    """Return how often each group of documents is drawn in each sample.

    NaN with fewer than `LEAST_CLUSTERS` groups: whatever is computed from these draws has no interval.
    """
    if n_groups < LEAST_CLUSTERS:
        return np.full((n_groups, samples), np.nan, np.float32)
    generator = np.random.Generator(np.random.PCG64(_SEED))
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), samples).T.astype(np.float32)


def draws_interval(
    value: float,
    draws: Float[np.ndarray, " samples"],
    n_clusters: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    *,
    paired: bool = False,
) -> list[float] | None:
    """95 % interval [low, high] of a statistic, from its value over all clusters and its values in draws of clusters.

    It reaches `half_width` standard errors beyond both the value and the value corrected for bias. Both count, because
    one latent at a limit can make the whole bias of a count. With `paired`, for the difference of two dictionaries, it
    is centred on the difference and not widened, as in `jackknife_interval`. None with fewer than `LEAST_CLUSTERS`
    clusters, without a value, or when more than a twentieth of the draws have no value.
    """
    if n_clusters < LEAST_CLUSTERS or not np.isfinite(value):
        return None
    known = _known(draws)
    if known is None:
        return None
    small = n_clusters / (n_clusters - 1)  # a draw's own spread is that of a population of n clusters
    error = math.sqrt(small) * known.std()
    if paired:
        corrected, half = value, stdtrit(n_clusters - 1, _LEVELS[1]) * error
    else:
        corrected, half = value - small * (known.mean() - value), half_width(n_clusters) * error
    low, high = min(corrected, value) - half, max(corrected, value) + half
    return [float(max(low, bounds[0])), float(min(high, bounds[1]))]


def _known(draws: Float[np.ndarray, " samples"]) -> np.ndarray | None:
    """Return the draws that have a value, in float64; None when too few have."""
    known = draws[np.isfinite(draws)].astype(np.float64)
    return None if len(known) < (1 - _MAX_EMPTY) * len(draws) else known


@dataclass(frozen=True, eq=False)
class Drawn:
    """A measure, and its value in every draw of documents (NaN where a draw has none of its examples)."""

    value: float
    draws: Float[np.ndarray, " samples"]

    @property
    def interval(self) -> list[float] | None:
        """95 % percentile interval over the draws that have a value; None when too few have one."""
        return percentile_interval(self.draws)

    def __sub__(self, other: "Drawn") -> "Drawn":
        return Drawn(self.value - other.value, self.draws - other.draws)

    def less(self, number: float) -> "Drawn":
        """The measure less a number that is known."""
        return Drawn(self.value - number, self.draws - number)


def percentile_interval(draws: Float[np.ndarray, " samples"]) -> list[float] | None:
    """95 % percentile interval; None when more than a twentieth of the draws have no value."""
    known = _known(draws)
    return None if known is None else [float(value) for value in np.quantile(known, _LEVELS)]


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
