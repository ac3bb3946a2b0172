"""Curves: what is seen of a run at its looks, one row per step and split."""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from atlas.tables import write_parquet
from atlas.training.state import TrainingState
from atlas.training.update import Report

TRAIN = "train"
_COLUMNS = {"step": "int64", "tokens": "int64", "split": "str"}
_COLUMNS |= dict.fromkeys(("explained_variance", "l0", "silent_share", "loss", "squared_error"), "float64")
_COLUMNS |= {"auxiliary_loss": "float64", "dead_latents": "Int64"}
_COLUMNS |= dict.fromkeys(("lr", "threshold", "gradient_norm"), "float64")


def training_row(state: TrainingState, report: Report, targets: Tensor) -> dict[str, Any]:
    """Return what the last update saw; `targets` are the rows that it reconstructed."""
    variance = (targets - targets.mean(dim=0)).square().sum(dim=1).mean().item()
    squared_error, has_threshold = report.squared_error.item(), state.threshold.item() >= 0
    return {
        "split": TRAIN,
        "loss": report.loss.item(),
        "squared_error": squared_error,
        "auxiliary_loss": report.auxiliary.item(),
        "explained_variance": 1 - squared_error / variance if variance > 0 else None,
        "l0": report.l0.item(),
        "dead_latents": report.dead,
        "lr": report.lr,
        "threshold": state.threshold.item() if has_threshold else None,
        "gradient_norm": report.gradient_norm.item(),
    }


def write_curves(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write training.parquet; the same rows give the same bytes."""
    curves = pd.DataFrame(rows, columns=list(_COLUMNS))
    types = {name: kind for name, kind in _COLUMNS.items() if kind in ("float64", "Int64")}
    write_parquet(path, curves.astype(types))
