"""Finance of a study: one row per SAE, and what it gains over the SAE of its seed that saw no financial text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.errors import EvaluationError
from atlas.sae_files import read_of_sae
from atlas.statistics.draws import draws_interval
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import flat
from atlas.tables import read_parquet, write_csv


def write_finance_table(
    study: str,
    results: Mapping[str, Path],
    draws: Mapping[str, Path],
    baselines: Mapping[str, str | None],
    table: Path,
) -> None:
    """Write results/<study>_finance.csv from finance.json and draws.parquet of each SAE (SAE id → file).

    ``gain_<name>`` is an estimate less the baseline's (SAE id → SAE id or None); its interval is of the differences
    draw by draw, for both were computed on the same draws of the same documents. Raises EvaluationError
    when a result is of another SAE, or of other text than its baseline's.
    """
    found = {sae_id: read_of_sae(path, sae_id) for sae_id, path in results.items()}
    rows = []
    for sae_id, result in found.items():
        columns = {name: value for name, value in result.items() if name not in ("sae_id", "reasons")}
        row = {**identity(study, sae_id), **{k.removeprefix("_"): v for k, v in flat("", columns)}}
        row |= {"baseline_mix": None}
        if (baseline := baselines[sae_id]) is not None and baseline != sae_id:
            row["baseline_mix"] = identity(study, baseline)["mix"]
            row |= dict(flat("gain", _gains(results[sae_id], result, found[baseline], draws[sae_id], draws[baseline])))
        rows.append(row | {"reasons": json.dumps(result["reasons"], ensure_ascii=False, sort_keys=True)})
    write_csv(table, frame_of(rows))


def _gains(
    path: Path, here: Mapping[str, Any], there: Mapping[str, Any], here_draws: Path, there_draws: Path
) -> dict[str, Any]:
    for key in ("corpus", "n_tokens", "n_documents"):
        if here[key] != there[key]:
            raise EvaluationError(f"{path}: {key} is {here[key]!r}, but {there[key]!r} of its baseline; run both again")
    ours, theirs = read_parquet(here_draws), read_parquet(there_draws)
    gains: dict[str, Any] = {}
    for name in ours.columns.intersection(theirs.columns, sort=False):
        if name.startswith("random_") or here[name] is None or there[name] is None:
            continue
        differences = ours[name].to_numpy() - theirs[name].to_numpy()
        gains[name] = here[name] - there[name]
        documents = here["loss_documents" if "loss" in name else "n_documents"]
        gains[f"{name}_interval"] = draws_interval(gains[name], differences, documents, paired=True)
    return gains
