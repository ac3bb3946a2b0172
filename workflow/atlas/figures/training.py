"""Curves of all trainings of a study: one colour per dictionary, its seeds as lines of that colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.figures.captions import listed, name_models, saes, span
from atlas.figures.series import name_series, sae_ids, series_colours
from atlas.figures.style import WIDTH, draw
from atlas.studies.rows import read_rows
from atlas.tables import read_parquet


@dataclass(frozen=True)
class Panel:
    """One measure over training: its column in the curves, of which split."""

    title: str
    column: str
    split: str


PANELS = (
    Panel("explained variance, in-sample", "explained_variance", "in_sample"),
    Panel("explained variance, out-of-sample", "explained_variance", "oos"),
    Panel("L0, in-sample", "l0", "in_sample"),
    Panel("dead latents (%)", "dead_pct", "train"),
    Panel("threshold", "threshold", "train"),
    Panel("learning rate", "lr", "train"),
)


def draw_training(table: Path, curves: Mapping[str, Path], targets: Sequence[Path]) -> None:
    """Draw the curves of a study's SAEs (SAE id → training.parquet) to every target (.pdf, .png).

    `table` is results/<study>_runs.csv; it names what differs between them.
    """
    runs = read_rows(table).astype({"seed": str})
    frames = {sae_id: read_parquet(path) for sae_id, path in curves.items()}
    draw(plot_training, describe_training, targets, runs, frames)


def describe_training(runs: pd.DataFrame, curves: Mapping[str, pd.DataFrame]) -> str:
    """The caption."""
    ends = span(frame.tokens.max() for frame in curves.values())
    return (
        f"Trainings of {saes(runs)} of {listed(runs.model)}, each on {ends} rows. A colour is one dictionary, its "
        "lines are seeds. Explained variance and L0 are of the inference path on rows that are not trained on. How "
        "to read them: docs/training.md."
    )


def plot_training(runs: pd.DataFrame, curves: Mapping[str, pd.DataFrame]) -> Figure:
    """The figure; a run without a measure (a threshold, say) has no line in its panel."""
    runs = name_series(runs.assign(n_latents=runs["sae.n_latents"]))
    by_id = dict(zip(sae_ids(runs), runs.to_dict("records"), strict=True))
    colours = series_colours(list(dict.fromkeys(by_id[sae_id]["series"] for sae_id in curves)))
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 3.8), sharex=True, layout="constrained")
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        for sae_id, frame in curves.items():
            rows = frame[frame.split == panel.split]
            rows = rows.assign(dead_pct=100 * rows.dead_latents / by_id[sae_id]["n_latents"])
            rows = rows.dropna(subset=[panel.column])
            if len(rows):
                values = rows[panel.column].astype(float)
                axis.plot(rows.tokens / 1e6, values, color=colours[by_id[sae_id]["series"]], linewidth=0.9)
        axis.set_title(panel.title)
        _limit(axis, panel)
    _draw_k(axes.flat[2], runs)
    for axis in axes[1]:
        axis.set_xlabel("training rows (millions)")
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(colours)), frameon=False)
    name_models(figure, runs)
    return figure


def _limit(axis: Axes, panel: Panel) -> None:
    """Measures that are counts or rates start at 0, so that a change of nothing looks like nothing."""
    if not axis.lines:
        axis.annotate("none: no architecture here has one", (0.5, 0.5), xycoords="axes fraction", ha="center")
        axis.set_yticks([])
    elif panel.column != "explained_variance":
        highest = max(np.asarray(line.get_ydata()).max() for line in axis.lines) or 1
        axis.set_ylim(-0.04 * highest, 1.15 * highest)  # a line at 0 is not hidden by the axis


def _draw_k(axis: Axes, runs: pd.DataFrame) -> None:
    """Return what L0 should be: K of the recipes."""
    for k in sorted(set(runs["sae.k"].dropna())) if "sae.k" in runs else []:
        axis.axhline(k, color="#666666", linewidth=0.7, linestyle=(0, (4, 2)), zorder=0)
        axis.annotate(f"k = {k:g}", (0.98, k), xycoords=("axes fraction", "data"), fontsize=6, va="bottom", ha="right")
