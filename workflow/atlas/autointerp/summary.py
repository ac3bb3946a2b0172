"""Sum up the scores of an SAE's labels, and name the controls that they beat."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from atlas.autointerp.by_context import LEAST_TOLD, TOKEN
from atlas.autointerp.examples import NEGATIVES
from atlas.autointerp.intruder import summary_of_trials
from atlas.autointerp.judge import MEASURES, LabelResults
from atlas.autointerp.outcome import FALSE_SHARE
from atlas.autointerp.windows import Windows
from atlas.config.autointerp import Autointerp
from atlas.statistics.draws import Drawn

# Control -> the difference whose interval must be above 0.
CONTROLS = {"shuffled labels": "specificity", "blind": "over_blind", "random dictionary": "over_random"}
# The same without a label.
INTRUDER_CONTROLS = {"chance": "over_chance", "random dictionary": "over_random"}


def summarise(found: Mapping[str, LabelResults], windows: Windows, settings: Autointerp) -> dict[str, Any]:
    """One row per dictionary, explainer, scorer and kind of negatives; the random dictionary is the SAE's control."""
    facts = {
        "corpora": list(windows.corpora),
        "n_windows": len(windows),
        "n_documents": len(windows.groups.documents),
        "n_train_windows": int(windows.training(settings.seeds[0]).sum()),
        "by_token": {name: _by_token(own, found["random"]) for name, own in found.items()},
    }
    rows = [
        _row(found, settings, dictionary, explainer, scorer, kind)
        for dictionary, own in found.items()
        for explainer, scorer in own.judged
        for kind in NEGATIVES
    ]
    return facts | {"rows": rows}


def _by_token(found: LabelResults, random: LabelResults) -> dict[str, Any]:
    """Return how far the token alone tells where the latents of a dictionary fire strongly.

    `share_told` have a correlation above `limit`, which a twentieth of the random dictionary's latents reach.
    """
    known, null = (own.by_fact[TOKEN][np.isfinite(own.by_fact[TOKEN])] for own in (found, random))
    if not len(known):
        return {"n_scored": 0, "median": None, "limit": None, "share_told": None}
    limit = max(LEAST_TOLD, float(np.quantile(null, 1 - FALSE_SHARE))) if len(null) else LEAST_TOLD
    share = float((known > limit).mean())
    return {"n_scored": len(known), "median": float(np.median(known)), "limit": limit, "share_told": share}


def _row(
    found: Mapping[str, LabelResults],
    settings: Autointerp,
    dictionary: str,
    explainer: str | None,
    scorer: str,
    kind: str,
) -> dict[str, Any]:
    own, labels = found[dictionary], explainer is not None
    judged = own.judged[explainer, scorer]
    rows = judged.rows[judged.rows.negatives == kind]
    scored = rows[rows.reason.isna()]
    trials = {"chance": 0.5} if labels else summary_of_trials(scored, settings.intruder_windows)
    means = {name: judged.means.get((kind, name)) for name in MEASURES}
    if not labels:
        means["over_chance"] = None if means["score"] is None else means["score"].less(trials["chance"])
    control = found["random"].judged[explainer, scorer].means.get((kind, "score"))
    if dictionary == "sae":
        means["over_random"] = _difference(means["score"], control)
    measured = {name: _measure(auc) for name, auc in means.items()}
    controls = CONTROLS if labels else INTRUDER_CONTROLS
    beaten = {name: _above_zero(measured[key]) for name, key in controls.items() if key in measured}
    quality = {} if explainer is None else own.quality.get(explainer, {})
    return {
        "dictionary": dictionary,
        "explainer": explainer,
        "scorer": scorer,
        "negatives": kind,
        "n_alive": own.n_alive,
        "n_asked": own.n_chosen,
        "n_scored": len(scored),
        "coverage": len(scored) / own.n_alive if own.n_alive else None,
        "unscored": dict(Counter(rows.reason.dropna())),
        "failed_share": _mean(scored.failed_share),
        **trials,
        **measured,
        "random_score": _measure(control)["value"],
        "share_above_chance": _mean((scored.score_low > trials["chance"]).astype(float)),
        "share_specific": _mean((scored.specificity_low > 0).astype(float)) if labels else None,
        "neighbour_cosine": _mean(scored.neighbour_cosine.dropna()) if kind == "hard" else None,
        "verdict": _verdict(beaten),
        "beats": [name for name, won in beaten.items() if won],
        "does_not_beat": [name for name, won in beaten.items() if won is False],
        **{f"labels_{name}": value for name, value in quality.items()},
    }


def _measure(auc: Drawn | None) -> dict[str, Any]:
    return {"value": None, "interval": None} if auc is None else {"value": auc.value, "interval": auc.interval}


def _difference(auc: Drawn | None, control: Drawn | None) -> Drawn | None:
    return None if auc is None or control is None else auc - control


def _above_zero(measured: Mapping[str, Any]) -> bool | None:
    """Return whether the interval lies above 0; None without an interval."""
    return None if measured["interval"] is None else measured["interval"][0] > 0


def _verdict(beaten: Mapping[str, bool | None]) -> str:
    lost = [name for name, won in beaten.items() if not won]
    return "beats its controls" if not lost else f"does not beat {', '.join(lost)}"


def _mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None
