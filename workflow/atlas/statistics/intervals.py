"""Two-sided 95 % intervals of rates, means and areas, one-sided bounds of rates, and intervals of differences."""

import numpy as np
from scipy.special import betaincinv, stdtrit

from atlas.statistics.clusters import LEAST_CLUSTERS

_TAIL = 0.025
# A one-sided bound holds with this confidence.
CONFIDENCE = 0.95
_Z = 1.959963984540054  # 97.5 % point of the standard normal


def rate_interval(n: np.ndarray | int, of: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Clopper–Pearson interval (low, high) of a rate of which `n` in `of` were seen; (0, 1) where `of` is 0."""
    return _rate_low(n, of, _TAIL), _rate_high(n, of, 1 - _TAIL)


def rate_lower(n: np.ndarray, of: np.ndarray | int) -> np.ndarray:
    """One-sided 95 % Clopper–Pearson lower bound of a rate of which `n` in `of` were seen."""
    return _rate_low(n, of, 1 - CONFIDENCE)


def rate_upper(n: np.ndarray, of: np.ndarray | int) -> np.ndarray:
    """One-sided 95 % Clopper–Pearson upper bound of a rate of which `n` in `of` were seen.

    For 0 seen this is 1 − 0.05^(1 / of), close to 3 / of. Where all were seen, or `of` is 0, it is 1.
    """
    return _rate_high(n, of, CONFIDENCE)


def _rate_low(n: np.ndarray | int, of: np.ndarray | int, level: float) -> np.ndarray:
    n = np.asarray(n)
    return np.where(n > 0, betaincinv(np.maximum(n, 1), of - n + 1, level), 0.0)


def _rate_high(n: np.ndarray | int, of: np.ndarray | int, level: float) -> np.ndarray:
    n = np.asarray(n)
    rest = of - n
    return np.where(rest > 0, betaincinv(n + 1, np.maximum(rest, 1), level), 1.0)


def normal_interval(value: float, variance: float, low: float, high: float) -> list[float] | None:
    """95 % interval, cut at what the value can be; None when the variance is 0: nothing is known of the noise."""
    if variance <= 0:
        return None
    half = _Z * variance**0.5
    return [max(low, value - half), min(high, value + half)]


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
