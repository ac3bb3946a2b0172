"""Sum up the latents of a dictionary on one corpus. docs/metrics.md, section 6."""

from typing import Any

import numpy as np
import pandas as pd

from atlas.latents.coherence import COHERENT_Z, Coherence
from atlas.latents.table import CorpusMeasurements
from atlas.latents.token_classes import CLASSES
from atlas.statistics.intervals import rate_interval, rate_upper


def summarise(rows: pd.DataFrame, measured: CorpusMeasurements, coherence: Coherence | None) -> dict[str, Any]:
    """Numbers of one dictionary on one corpus from its rows of the table; None where there is nothing to average."""
    alive = rows[rows["n_firings"] > 0]
    intervals = measured.activity.intervals
    result: dict[str, Any] = {
        "n_alive": len(alive),
        "silent_share": 1 - len(alive) / len(rows),
        "silent_rate_bound": float(rate_upper(np.zeros(1), measured.text.n_tokens)[0]),
        "dense_share": float(rows["dense"].mean()),
        "dense_share_interval": intervals["dense_share"],
        "massive_share": _mean(alive["massive_share"]),
        "massive_share_interval": intervals["massive_share"],
        "artefact_share": _mean(rows["formatting_artefact"].dropna().astype(float)),
        "artefact_share_interval": intervals["artefact_share"],
        "artefacts_tested": int(rows["formatting_artefact"].notna().sum()),
        "top_token_mass": _mean(alive["top_token_mass"]),
    }
    for name in CLASSES[1:]:
        result[f"mass_{name}"] = _mean(alive[f"mass_{name}"])
        result[f"mass_{name}_interval"] = intervals[f"mass_{name}"]
    return result | _coherence(rows, coherence) | measured.fragmentation.summary()


def _coherence(rows: pd.DataFrame, coherence: Coherence | None) -> dict[str, Any]:
    tested = rows[rows["coherence_z"].notna()]
    coherent = tested["coherence_z"] > COHERENT_Z
    return {
        "coherence": _mean(rows["coherence"].dropna()),
        "coherence_interval": None if coherence is None else coherence.mean_interval,
        "coherence_null": _mean(tested["coherence_null_mean"]),
        "coherence_z": _mean(tested["coherence_z"]),
        "coherent_share": _mean(coherent.astype(float)),
        "coherent_share_interval": _rate_interval(coherent),
        "coherence_tested": len(tested),
    }


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None


def _rate_interval(happened: pd.Series) -> list[float] | None:
    if not len(happened):
        return None
    low, high = rate_interval(np.array([happened.sum()]), len(happened))
    return [float(low[0]), float(high[0])]
