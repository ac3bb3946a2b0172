"""One SAE at home and away, from files: changes of its metrics, of its latents' rates, of what fires on a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from atlas.activations.store import Shard, shards_by_corpus
from atlas.config.shifts import EvaluationTarget
from atlas.errors import EvaluationError
from atlas.evaluation.shift import fed_scaled
from atlas.evaluation.undefined import without_nonfinite
from atlas.files import write_json
from atlas.folder import Folder
from atlas.latents.drift import drift_from, log_ratio, metric_changes, newly_silent
from atlas.sae_files import read_of_sae
from atlas.tables import write_parquet
from atlas.training.sae import Sae, load_sae
from atlas.transfer.usage import Side, TokenByToken, firings, same_tokens


@dataclass(frozen=True)
class TransferInputs:
    """Files of one transfer: SAE folder; metrics.json and eval shards at home and away."""

    sae: Folder
    home_metrics: Path
    away_metrics: Path
    home_shards: list[Path]
    away_shards: list[Path]


def run_transfer(
    inputs: TransferInputs,
    *,
    home: EvaluationTarget,
    away: EvaluationTarget,
    corpora: Mapping[str, str],
    device: torch.device,
    target: Path,
    table: Path,
) -> None:
    """Write transfer.json and a table with one row per latent and corpus.

    `corpora` maps each corpus at home to the one that is judged in its place away (often the same). Raises
    EvaluationError when metrics are of another SAE or lack a corpus, or the widths differ; StoreError for damaged
    shards.
    """
    sae_id = "/".join(inputs.sae.parts[-5:])
    metrics = [_read_metrics(path, sae_id) for path in (inputs.home_metrics, inputs.away_metrics)]
    shards = [shards_by_corpus(paths, {}) for paths in (inputs.home_shards, inputs.away_shards)]
    sae = load_sae(inputs.sae).to(device)
    results, rows, reasons = {}, [], {}
    for corpus, other in corpora.items():
        before, after = (
            _corpus(metrics[0], corpus, inputs.home_metrics),
            _corpus(metrics[1], other, inputs.away_metrics),
        )
        here = _side(sae, shards[0], corpus, home)
        there = _side(fed_scaled(sae, away.scale), shards[1], other, away)
        result, latents = _compare(here, there)
        if result["same_tokens"] is None:
            reasons[f"{corpus}_same_tokens"] = "home and away do not have the same tokens at the same places"
        results[corpus] = {
            "judged_on": other,
            "role": before["role"],
            "outcome_home": before["outcome"]["atlas"]["verdict"],
            "outcome_away": after["outcome"]["atlas"]["verdict"],
            "metric_changes": metric_changes(before["atlas"], after["atlas"]),
            **result,
        }
        rows.append(latents.assign(corpus=corpus, judged_on=other))
    write_json(target, without_nonfinite({"sae_id": sae_id, "corpora": results}, reasons) | {"reasons": reasons})
    write_parquet(table, pd.concat(rows, ignore_index=True))


def _compare(here: Side, there: Side) -> tuple[dict[str, Any], pd.DataFrame]:
    ours, theirs = firings(here), firings(there)
    latents = pd.DataFrame(
        {
            "latent": np.arange(here.sae.n_latents),
            "firings_home": ours.counts,
            "firings_away": theirs.counts,
            "log_ratio": log_ratio(ours, theirs),
            "newly_silent": newly_silent(ours, theirs),
        }
    )
    result: dict[str, Any] = {"usage": drift_from(ours, theirs), "same_tokens": None}
    if same_tokens(here, there):
        tokens = TokenByToken(here, there)
        latents["correlation"] = tokens.correlation()
        latents["correlation_displaced"] = tokens.correlation("displaced")
        known = latents.correlation.dropna()
        result["same_tokens"] = {
            "turnover": tokens.turnover(),
            "turnover_interval": tokens.turnover_interval(),
            "turnover_displaced": tokens.turnover("displaced"),
            "correlation_median": float(known.median()),
            "correlation_displaced_median": float(latents.correlation_displaced.dropna().median()),
            "latents_correlated": len(known),
        }
    return result, latents


def _side(sae: Sae, shards: Mapping[str, list[Shard]], corpus: str, place: EvaluationTarget) -> Side:
    if corpus not in shards:
        raise EvaluationError(f"corpus {corpus!r} has no eval shards at {place.model}, only {sorted(shards)}")
    width = shards[corpus][0].read_rows(place.hook, 0, 1).shape[1]
    if width != sae.d_model:
        raise EvaluationError(
            f"{shards[corpus][0].path}: rows of {place.hook} have width {width}, but the SAE has {sae.d_model}"
        )
    return Side(sae, shards[corpus], place.hook)


def _read_metrics(path: Path, sae_id: str) -> dict[str, Any]:
    return read_of_sae(path, sae_id)["corpora"]


def _corpus(metrics: Mapping[str, Any], corpus: str, path: Path) -> dict[str, Any]:
    if corpus not in metrics:
        raise EvaluationError(f"{path}: has no corpus {corpus!r}, only {sorted(metrics)}; delete it and run again")
    return metrics[corpus]
