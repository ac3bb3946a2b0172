"""Stability of every SAE of a study: one row per SAE."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.sae_ids import SaeId
from atlas.studies.rows import frame_of, identity, unknown_of
from atlas.studies.table import flat
from atlas.tables import write_csv


def write_stability_table(study: str, summaries: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_stability.csv from the stability.json of each SAE's seeds (SAE id → file).

    What is not defined is empty and `reasons` says why; columns are documented in docs/metrics.md.
    """
    rows = [_row(study, sae_id, read_json(path)) for sae_id, path in summaries.items()]
    write_csv(table, frame_of(rows))


def _row(study: str, sae_id: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    who = identity(study, sae_id)
    own = summary["saes"][str(SaeId.parse(sae_id).seed)]  # a published SAE has one in its id, and none in the table
    kept = {key: own[key] for key in ("n_latents", "n_firing", "matching")}
    kept |= {"other_seeds": " ".join(map(str, own["other_seeds"])), "corpus": summary["corpus"]}
    kept["n_rows"] = summary["n_rows"]
    measures = dict(flat("firing", own["firing"] or {})) | dict(flat("all", own["all"] or {}))
    firing = {key: value for key, value in own.items() if key.startswith("firing_")}
    noise = {f"explained_variance_regular_{key}": value for key, value in summary["noise"].items()}
    reasons = json.dumps(own["reasons"] | unknown_of(sae_id), ensure_ascii=False, sort_keys=True)
    return who | kept | measures | firing | noise | {"reasons": reasons}
