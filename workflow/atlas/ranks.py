"""Spearman's rank correlation, without the seconds that importing scipy.stats takes."""

import numpy as np
import pandas as pd


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's; None when there are fewer than three values or all of a side are equal."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1])
