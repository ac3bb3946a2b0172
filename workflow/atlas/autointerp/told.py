"""Count the latents whose firing something tells, in the SAE, its random dictionary and the planted dictionary.

docs/metrics.md, section 14. The limits are the same for all three.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.autointerp.by_context import FACTS
from atlas.autointerp.planted import ALL, PLANTED_CLASSES, RANDOM
from atlas.statistics.intervals import rate_interval


def share_told(told: np.ndarray) -> dict[str, Any]:
    """Share of true values with its Clopper–Pearson interval; null without any value."""
    n = len(told)
    if not n:
        return {"n": 0, "share": None, "interval": None}
    low, high = rate_interval(np.array([told.sum()]), n)
    return {"n": n, "share": float(told.mean()), "interval": [float(low[0]), float(high[0])]}


def share_of_latents(outcomes: pd.DataFrame, asked: pd.Series) -> dict[str, Any]:
    """Share told of the latents that fire and were to be labelled, from their outcomes; `asked` has their numbers."""
    chosen = ~outcomes.outcome.isin(["dead", "untested"]) & outcomes.latent.isin(asked)
    return share_told(outcomes.told_by[chosen].notna().to_numpy())


def shares_of_planted(
    ceilings: Sequence[Mapping[str, Any]], limits: Mapping[str, float], explainer: str
) -> dict[str, dict[str, Any]]:
    """Share told of planted latents by class; `ALL` is the planted dictionary.

    `ceilings` are the rows of `score_planted`. Nothing where planted latents were not given to the explainer or to a
    scorer that decides on real ones: those that ask a language model get none.
    """
    rows = {(own["class"], own["dense"], own["explainer"], own["scorer"]): own["latents"] for own in ceilings}
    groups = list(dict.fromkeys((name, dense) for name, dense, _, _ in rows))
    told = {}
    for name, dense in groups:
        by_measure = [
            [_tells(each, measure, limits[measure]) for each in rows[key]]
            for measure in limits
            if (key := (name, dense, None if measure in FACTS else explainer, measure)) in rows
        ]
        if len(by_measure) < len(limits):
            return {}
        told[name, dense] = np.array(by_measure, bool).any(0)
    found = {name: share_told(told[name, False]) for name in PLANTED_CLASSES if (name, False) in told}
    meaningful = [own for (name, dense), own in told.items() if dense and name != RANDOM]
    return found | ({ALL: share_told(np.concatenate(meaningful))} if meaningful else {})


def _tells(latent: Mapping[str, float | None], measure: str, limit: float) -> bool:
    """Return whether a fact or a scorer tells where a planted latent fires, by the rule of real latents."""
    if measure in FACTS:
        return latent["score"] is not None and latent["score"] > limit
    low, specificity = latent["score_low"], latent["specificity_low"]
    return low is not None and specificity is not None and low > limit and specificity > 0
