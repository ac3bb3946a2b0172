"""Documents drawn with replacement, ahead of the numbers: many statistics of one pass share one set of draws."""

import numpy as np
from jaxtyping import Float

# As in atlas.evaluation.bootstrap: intervals of two dictionaries on one corpus are comparable.
_SEED = 0
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
