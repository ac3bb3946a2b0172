"""The table of a study of shifts: what changes away from home."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.studies.rows import frame_of, identity, unknown_of
from atlas.studies.table import flat
from atlas.tables import write_csv
from atlas.twins.learnt import UNTESTED

# Of all numbers that change, those that say what becomes of an SAE; all others are in transfer.json.
_METRICS = (
    "explained_variance_regular",
    "cosine_regular",
    "l0",
    "dense_pct",
    "loss_recovered_mean",
    "delta_loss",
    "kl",
)


def write_transfer_table(study: str, rows: Sequence[Mapping[str, Any]], results: Sequence[Path], table: Path) -> None:
    """Write results/<study>_transfer.csv: a row per SAE, shift and corpus.

    `rows` say who, where, under which shift, and of which corpora: another study may ask more of the same SAE.
    A value that is not defined is empty, and `reasons` says why.
    """
    frame = frame_of(
        _row(study, row, corpus, values, found["reasons"])
        for row, found in zip(rows, map(read_json, results), strict=True)
        for corpus, values in found["corpora"].items()
        if corpus in row["corpora"]
    )
    write_csv(table, frame)


def _row(
    study: str, row: Mapping[str, Any], corpus: str, values: Mapping[str, Any], reasons: Mapping[str, str]
) -> dict[str, Any]:
    result = identity(study, row["sae_id"]) | {
        "shift": row["shift"],
        "judged_model": row["model"],
        "judged_hook": row["hook"],
        "judged_scale": row["scale"],
        "corpus": corpus,
        "judged_corpus": values["judged_on"],
        "role": values["role"],
        "outcome_home": values["outcome_home"],
        "outcome_away": values["outcome_away"],
        "learnt": UNTESTED,
    }
    for name in _METRICS:
        change = values["metric_changes"].get(name) or {"from": None, "to": None, "change": None, "interval": None}
        result |= {f"{name}_home": change["from"], f"{name}_away": change["to"], f"{name}_change": change["change"]}
        result[f"{name}_change_low"], result[f"{name}_change_high"] = change["interval"] or (None, None)
    result |= dict(flat("usage", values["usage"]))
    result |= dict(flat("token", values["same_tokens"] or {}))
    mine = {name: reason for name, reason in reasons.items() if name.startswith(corpus)} | unknown_of(row["sae_id"])
    return result | {"reasons": json.dumps(mine, ensure_ascii=False, sort_keys=True)}
