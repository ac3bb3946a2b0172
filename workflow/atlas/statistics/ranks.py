"""Spearman's rank correlation, without the seconds that importing scipy.stats takes, and its interval over groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

_SAMPLES, _LEVELS, _MAX_EMPTY = 2000, (0.025, 0.975), 0.05
_LEAST = 3
# From so few values an interval says nothing.
_LEAST_GROUPED = 4


def rank_correlation(first: Shaped[np.ndarray, " values"], second: Shaped[np.ndarray, " values"]) -> float | None:
    """Spearman's; None when there are fewer than three values or all of a side are equal."""
    if len(first) < _LEAST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1])


def grouped_rank_correlation(first: Sequence[float], second: Sequence[float], groups: Sequence[Any]) -> dict[str, Any]:
    """Spearman's ρ, with a 95 % percentile interval over `groups` drawn with replacement: members of one go together.

    Pairs with a value that is not finite are left out; `n` counts the others. None below four pairs, or when one side
    does not vary. The interval is also None when the drawn pairs do not vary in more than a twentieth of the draws.
    """
    x, y, members = np.asarray(first, float), np.asarray(second, float), np.asarray(groups)
    known = np.isfinite(x) & np.isfinite(y)
    x, y, members = x[known], y[known], members[known]
    if len(x) < _LEAST_GROUPED or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"value": None, "interval": None, "n": len(x)}
    places = [np.flatnonzero(members == group) for group in np.unique(members)]
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = []
    for _ in range(_SAMPLES):
        chosen = np.concatenate([places[group] for group in generator.integers(0, len(places), len(places))])
        if (found := rank_correlation(x[chosen], y[chosen])) is not None:
            drawn.append(found)
    enough = len(drawn) >= (1 - _MAX_EMPTY) * _SAMPLES
    interval = [float(value) for value in np.quantile(drawn, _LEVELS)] if enough else None
    return {"value": rank_correlation(x, y), "interval": interval, "n": len(x)}
