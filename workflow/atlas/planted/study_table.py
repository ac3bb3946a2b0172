"""Table of how much of a planted truth a study's dictionaries found, beside all their other columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.files import read_json
from atlas.statistics.intervals import rate_interval
from atlas.studies.table import flat, table_row
from atlas.tables import write_csv

# Lower ends of the bands in which verdicts are counted.
_BANDS = {0.9: "0.9 and more", 0.5: "0.5 to 0.9", 0.1: "0.1 to 0.5", 0.0: "below 0.1"}
# What the columns of each dictionary begin with.
_PREFIXES = {"recovery": "sae", "random_recovery": "random", "truth_recovery": "truth"}


def write_recovery(
    study: str,
    metrics: Mapping[str, Path],
    recoveries: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    table: Path,
    verdicts: Path,
) -> None:
    """Write results/<study>_recovery.csv, a row per SAE and corpus, and _verdicts.csv (SAE id → its two files).

    Columns are documented in docs/planted_truth.md; behind them are all columns of results/<study>.csv.
    """
    rows = []
    for sae_id, path in metrics.items():
        judged, recovery = read_json(path), read_json(recoveries[sae_id])
        for corpus in corpora[sae_id]:
            known = table_row(study, sae_id, judged, corpus, None)
            own = recovery["corpora"][corpus]["sae"]["reasons"]
            del known["reasons"]  # written anew, with those of recovery
            reasons = judged["reasons"] | judged["corpora"][corpus]["reasons"]
            reasons |= {f"recovery_{key}": reason for key, reason in own.items()}
            identity = {name: known.pop(name) for name in list(known)[: list(known).index("role") + 1]}
            told = json.dumps(reasons, ensure_ascii=False, sort_keys=True)
            rows.append(identity | _columns(recovery, corpus) | known | {"reasons": told})
    frame = pd.DataFrame(rows)
    write_csv(table, frame)
    write_csv(verdicts, verdict_table(frame[frame.role == "in_sample"]))


def _columns(recovery: Mapping[str, Any], corpus: str) -> dict[str, Any]:
    result = {name: recovery[name] for name in ("n_features", "n_scored", "truth_l0")}
    for prefix, name in _PREFIXES.items():
        measures = recovery["directions"][name] | recovery["corpora"][corpus][name]
        result |= flat(prefix, {key: value for key, value in measures.items() if key != "reasons"})
    return result


def verdict_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return which verdicts dictionaries got that found so many features: n of `of`, share and its 95 % interval.

    A row per band of share_found, from the highest, and verdict.
    """
    low = table.recovery_share_found.map(lambda share: next(end for end in _BANDS if share >= end))
    counts = pd.DataFrame({"low": low, "verdict": table.outcome}).value_counts(sort=False).rename("n").reset_index()
    counts = counts.sort_values(["low", "n", "verdict"], ascending=[False, False, True])
    counts.insert(0, "share_found", counts.low.map(_BANDS))
    counts["of"] = counts.low.map(low.value_counts())
    counts["share"] = counts.n / counts.of
    counts["share_low"], counts["share_high"] = rate_interval(counts.n.to_numpy(), counts.of.to_numpy())
    return counts.drop(columns="low").reset_index(drop=True)
