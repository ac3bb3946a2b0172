"""Summarise the effects of an SAE's latents: every number with its interval and beside its null."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.causal.tables import BEYOND, NOT_BEYOND, strongest_twin
from atlas.statistics.clusters import ratio_intervals

# Effects of all firings together, and what is subtracted from them.
_POOLED = ("kl", "kl_random", "kl_other", "loss", "loss_random", "kl_after", "kl_after_random")
_POOLED_DIFFERENCES = {"kl_over_random": ("kl", "kl_random"), "kl_over_other": ("kl", "kl_other")}
_SILENT_NOISE = 1e-4


def summarise(found: pd.DataFrame, method: str, latents: pd.DataFrame, twins: Sequence[str] = ()) -> dict[str, Any]:
    """Compute means over the firings `found` with intervals over documents, shares of latents, means over latents.

    `twins` are the kinds of twins that were measured.
    """
    known = latents[latents.verdict.isin([BEYOND, NOT_BEYOND])]
    result: dict[str, Any] = {
        "n_latents": len(latents),
        "n_measured": len(known),
        "n_firings": len(found),
        "method": method,
        "share_beyond_random": float((known.verdict == BEYOND).mean()) if len(known) else None,
        "share_larger_than_random": float((known.kl_over_random_low > 0).mean()) if len(known) else None,
        "share_stated_beyond_random": float((known.stated_lift_over_random_low > 0).mean()) if len(known) else None,
        "share_larger_than_other": float((known.kl_over_other_low > 0).mean()) if len(known) else None,
        "share_larger_than_twin": float((known.kl_over_twin_low > 0).mean()) if len(known) and twins else None,
    }
    if not len(found):
        return result
    columns = {name: found[name].to_numpy(float) for name in _POOLED}
    columns |= {name: columns[more] - columns[less] for name, (more, less) in _POOLED_DIFFERENCES.items()}
    result["twin"], of_twin = strongest_twin(found, twins)
    columns |= of_twin
    above = np.stack(list(columns.values()), axis=1)
    below = np.isfinite(above).astype(float)
    above = np.column_stack([np.nan_to_num(above), found.kl])
    below = np.column_stack([below, found.kl_whole])
    low, high = ratio_intervals(found.document.to_numpy(), above, below)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = above.sum(0) / below.sum(0)
    for name, *numbers in zip([*columns, "share_of_whole"], values, low, high, strict=True):
        result |= {
            key: float(number) for key, number in zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True)
        }
    result["kl_silent_largest"] = float(found.kl_silent.max())
    result["silent_above_noise"] = int((found.kl_silent > _SILENT_NOISE).sum())
    names = ("stated_lift", "promoted_lift", "label_auc", "label_auc_fires")
    for name in (each for each in names if each in latents):
        for end in ("", "_random", "_other"):
            if f"{name}{end}" in latents:
                result[f"{name}{end}"] = float(latents[f"{name}{end}"].mean())
    return result
