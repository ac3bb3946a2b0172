"""Two-sided 95 % intervals that need no text: of rates, and of differences of what has intervals."""

import numpy as np
from scipy.special import betaincinv, stdtrit

_TAIL = 0.025
# Fewer clusters tell too little of how they vary: docs/twins.md has the coverage at each number.
LEAST_CLUSTERS = 4


def rate_interval(n: np.ndarray | int, of: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Clopper–Pearson interval (low, high) of a rate of which `n` in `of` were seen."""
    n = np.asarray(n)
    rest = of - n
    low = np.where(n > 0, betaincinv(np.maximum(n, 1), rest + 1, _TAIL), 0.0)
    high = np.where(rest > 0, betaincinv(n + 1, np.maximum(rest, 1), 1 - _TAIL), 1.0)
    return low, high


def difference_interval(before, before_low, before_high, after, after_low, after_high) -> tuple:
    """Interval (low, high) of after − before, each given with its own; numbers, or columns of them.

    Combines the two by their distances from the values (MOVER, Zou and Donner 2008), which takes them as independent.
    """
    difference = after - before
    return (
        difference - np.hypot(after - after_low, before_high - before),
        difference + np.hypot(after_high - after, before - before_low),
    )


def least_difference(low: float, high: float) -> float:
    """Smallest difference that would be told from 0, of two values that both have intervals as wide as this one.

    Their errors are taken as independent: on the same documents a paired difference tells less than this.
    """
    return float(np.sqrt(0.5) * (high - low))


def jackknife_interval(value: float, without: np.ndarray) -> list[float] | None:
    """Compute the interval [low, high] of a statistic of clusters from its value and those `without` each one.

    Student's t with one degree of freedom less than there are clusters (Tukey's jackknife). None with fewer than
    LEAST_CLUSTERS, or where a value is not finite.
    """
    n = len(without)
    if n < LEAST_CLUSTERS or not np.isfinite(value) or not np.isfinite(without).all():
        return None
    deviation = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    reach = float(stdtrit(n - 1, 1 - _TAIL) * deviation)
    return [value - reach, value + reach]


def welch_interval(first: np.ndarray, second: np.ndarray) -> list[float] | None:
    """Compute the interval [low, high] of mean(first) - mean(second) of two independent samples (Welch's t).

    None with fewer than LEAST_CLUSTERS in one of them.
    """
    sizes = np.array([len(first), len(second)])
    if sizes.min() < LEAST_CLUSTERS:
        return None
    parts = np.array([np.var(first, ddof=1), np.var(second, ddof=1)]) / sizes
    difference = float(np.mean(first) - np.mean(second))
    if parts.sum() == 0:
        return [difference, difference]
    freedom = parts.sum() ** 2 / (np.square(parts) / (sizes - 1)).sum()
    reach = float(stdtrit(freedom, 1 - _TAIL) * np.sqrt(parts.sum()))
    return [difference - reach, difference + reach]
