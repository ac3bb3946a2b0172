"""Frameworks side by side as small multiples: one column per quantity, one row per recipe, contenders along y."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.figures.captions import listed, span
from atlas.figures.style import SERIES_COLOURS, WIDTH, draw
from atlas.tables import read_csv


@dataclass(frozen=True)
class Panel:
    """One quantity: its title, its column, what its values are divided by, how means are written, and whether its axis
    starts at 0.
    """

    title: str
    column: str
    unit: float = 1.0
    digits: int = 1
    from_zero: bool = True


PANELS = (
    Panel("explained\nvariance", "explained_variance", digits=3, from_zero=False),
    Panel("recovered,\nzero", "loss_recovered", digits=3, from_zero=False),
    Panel("recovered,\nmean", "loss_recovered_mean", digits=3, from_zero=False),
    Panel("silent or dead\n(% of latents)", "dead_pct"),
    Panel("redundancy\n(absorption)", "absorption_guide", digits=2),
    Panel("speed\n(1000 rows/s)", "rows_per_second", 1e3),
    Panel("peak memory\n(GB)", "peak_memory_mb", 1e3, digits=2),
)


def draw_frameworks(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/frameworks.csv to every target (.pdf, .png)."""
    draw(plot_frameworks, describe_frameworks, targets, read_csv(table))


def describe_frameworks(rows: pd.DataFrame) -> str:
    """The caption."""
    return (
        f"The same activations, batches and recipe trained by {listed(rows.contender)}, each in an environment of its "
        f"own, and judged by one evaluation on {span(rows.dead_tokens)} tokens of {listed(rows.corpus)}; {len(rows)} "
        f"runs, seeds {listed(sorted(rows.seed.unique()))}. Points: seeds, bars: 95 % intervals over documents; grey: "
        "random dictionaries. Recovered: the share of the loss that zero ablation, or mean ablation, costs. "
        "Speed leaves out the start of the process; peak memory is that of the whole process. "
        "What differs: docs/frameworks.md."
    )


def plot_frameworks(rows: pd.DataFrame) -> Figure:
    """The figure of the table; every seed is a point, and where there is no run or no value the place stays empty."""
    recipes, contenders = list(dict.fromkeys(rows.recipe)), list(dict.fromkeys(rows.contender))
    height = 0.9 + len(recipes) * (0.35 + 0.17 * len(contenders))
    figure, axes = plt.subplots(
        len(recipes),
        len(PANELS),
        figsize=(WIDTH, height),
        sharex="col",
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axes_row, recipe in zip(axes, recipes, strict=True):
        of_recipe = rows[rows.recipe == recipe]
        for axis, panel in zip(axes_row, PANELS, strict=True):
            _draw_panel(axis, of_recipe, panel, contenders)
            _write_means(axis, of_recipe, panel, contenders)
        axes_row[0].set_yticks(range(len(contenders)), contenders)
        axes_row[0].set_ylim(len(contenders) - 0.4, -0.6)
        axes_row[0].set_ylabel(recipe, fontweight="bold")
    for column, panel in zip(axes.T, PANELS, strict=True):
        column[0].set_title(panel.title)
        _set_range(column[0], rows, panel)
    figure.supxlabel(_note(rows), fontsize=6)
    return figure


def _draw_panel(axis: Axes, rows: pd.DataFrame, panel: Panel, contenders: list[str]) -> None:
    if panel.column == "absorption_guide":
        mean, sd = rows.absorption_guide_null_mean.mean(), rows.absorption_guide_null_sd.max()
        axis.axvspan(mean - 2 * sd, mean + 2 * sd, color="#999999", alpha=0.5, linewidth=0)
    for row in rows.itertuples():
        place = contenders.index(row.contender)
        colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
        value = getattr(row, panel.column) / panel.unit
        low, high = (getattr(row, f"{panel.column}_{end}", np.nan) for end in ("low", "high"))
        if pd.notna(low):
            axis.plot([low, high], [place, place], color=colour, linewidth=0.8, solid_capstyle="butt")
        axis.plot(value, place, "o", markersize=4, color=colour, mec="white", mew=0.3)
    axis.grid(axis="y", visible=False)


def _write_means(axis: Axes, rows: pd.DataFrame, panel: Panel, contenders: list[str]) -> None:
    """The mean over seeds at the right end of a contender's line."""
    for contender, mean in rows.groupby("contender")[panel.column].mean().items():
        text = "not defined" if pd.isna(mean) else f"{mean / panel.unit:.{panel.digits}f}"
        place = contenders.index(contender)
        axis.text(0.97, place, text, transform=axis.get_yaxis_transform(), fontsize=5.5, va="center", ha="right")


def _set_range(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """All values, and a third of the width more for the written means."""
    columns = [name for name in (panel.column, f"{panel.column}_low", f"{panel.column}_high") if name in rows]
    values = rows[columns] / panel.unit
    low, high = (0.0 if panel.from_zero else values.min().min()), values.max().max()
    if pd.isna(high):
        return
    width = (high - low) or max(abs(high), 1.0)
    axis.set_xlim(low - 0.08 * width, high + 0.55 * width)


def _note(rows: pd.DataFrame) -> str:
    shapes = rows[["d_model", "n_latents", "k", "batch_size", "steps", "threads", "device"]].drop_duplicates()
    said = "\n".join(
        f"{s.d_model} dimensions, {s.n_latents} latents, k {s.k:g}, {s.steps} steps of {s.batch_size} rows, "
        f"{s.threads} threads, {s.device}"
        for s in shapes.itertuples()
    )
    untested = rows[rows.dead_status == "untested"]
    silent = f"; silent on {untested.dead_tokens.min() / 1000:.0f}k tokens: untested, not dead" if len(untested) else ""
    return f"{said}{silent}\nnumbers: means over seeds; grey: redundancy of random dictionaries, ±2 sd"
