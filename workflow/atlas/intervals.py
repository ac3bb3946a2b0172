"""Two-sided 95 % intervals that need no text: of rates, and of differences of what has intervals."""

import numpy as np
from scipy.special import betaincinv

_TAIL = 0.025


def rate_interval(n: np.ndarray, of: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
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
