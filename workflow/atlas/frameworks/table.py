"""The table of the study `frameworks`: a row per run, every contender beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.config.frameworks import OURS
from atlas.files import read_json
from atlas.frameworks.launch import FrameworkError
from atlas.tables import write_csv
from atlas.twins.learnt import UNTESTED


@dataclass(frozen=True)
class RunFiles:
    """Files that a run wrote: the runner's result, the loss on held-out rows, and the metrics."""

    result: Path
    held_out: Path
    metrics: Path


def write_frameworks_table(runs: Mapping[str, RunFiles], corpus: str, table: Path) -> None:
    """Write results/frameworks.csv from the files of the runs (``<contender>/<recipe>/seed-<n>`` → files).

    Columns are documented in docs/frameworks.md. A value that is not defined is empty.
    """
    if not runs:
        raise FrameworkError(f"{table}: the configuration has no section 'frameworks', so there is nothing to compare")
    rows = compared([_row(run_id, files, corpus) for run_id, files in runs.items()])
    write_csv(table, pd.DataFrame(rows))


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `ours_times_rows_per_second` and `held_out_loss_over_ours`: against ours, same recipe and seed."""
    ours = {(row["recipe"], row["seed"]): row for row in rows if row["contender"] == OURS}
    return [_beside(row, ours[row["recipe"], row["seed"]]) for row in rows]


def _beside(row: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    speeds = ours["rows_per_second"], row["rows_per_second"]
    return row | {
        "ours_times_rows_per_second": None if None in speeds else speeds[0] / speeds[1],
        "held_out_loss_over_ours": row["held_out_loss"] / ours["held_out_loss"],
    }


def _row(run_id: str, files: RunFiles, corpus: str) -> dict[str, Any]:
    contender, recipe, seed = run_id.split("/")
    result, metrics = read_json(files.result), read_json(files.metrics)
    job, judged = result["job"], metrics["corpora"][corpus]
    atlas, redundancy = judged["atlas"], metrics["redundancy"]["absorption_guide"]
    low, high = atlas["explained_variance_interval"] or (None, None)
    return {
        "contender": contender,
        "framework": result["framework"],
        "version": result["version"],
        "torch": result["torch"],
        "options": ", ".join(f"{key}={value}" for key, value in job["options"].items()),
        "recipe": recipe,
        "architecture": job["architecture"],
        "seed": int(seed.removeprefix("seed-")),
        **{key: job[key] for key in ("d_model", "n_latents", "k", "steps", "batch_size")},
        "corpus": corpus,
        "explained_variance": atlas["explained_variance"],
        "explained_variance_low": low,
        "explained_variance_high": high,
        "explained_variance_regular": atlas["explained_variance_regular"],
        "loss_recovered": atlas["loss_recovered_zero"],
        "loss_recovered_mean": atlas["loss_recovered_mean"],
        "delta_loss": atlas["delta_loss"],
        "l0": atlas["l0"],
        "dead_pct": atlas["dead_pct"],
        "dead_status": atlas["dead_status"],
        "dead_tokens": atlas["dead_tokens"],
        "absorption_guide": redundancy["value"],
        "absorption_guide_null_mean": redundancy["null_mean"],
        "absorption_guide_null_sd": redundancy["null_sd"],
        "outcome": judged["outcome"]["atlas"]["verdict"],
        "learnt": UNTESTED,
        "held_out_loss": read_json(files.held_out)["loss"],
        **{key: result[key] for key in ("rows_per_second", "median_step_seconds", "seconds", "peak_memory_mb")},
        "peak_gpu_memory_mb": result.get("peak_gpu_memory_mb"),
        "threads": result["threads"],
        "device": job["device"],
    }
