"""Frameworks side by side as small multiples: one column per quantity, one row per recipe, contenders along y."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.figures.style import SERIES_COLOURS, WIDTH, save, use_style


@dataclass(frozen=True)
class Panel:
    """One quantity: its title, its column, what its values are divided by, and whether its axis starts at 0."""

    title: str
    column: str
    unit: float = 1.0
    from_zero: bool = True


PANELS = (
    Panel("explained\nvariance", "explained_variance"),
    Panel("loss\nrecovered", "loss_recovered"),
    Panel("silent or dead\n(% of latents)", "dead_pct"),
    Panel("redundancy\n(absorption)", "absorption_guide"),
    Panel("speed\n(1000 rows/s)", "rows_per_second", 1e3),
    Panel("peak memory\n(GB)", "peak_memory_mb", 1e3),
)


def draw_frameworks(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/frameworks.csv to every target (.pdf, .png)."""
    use_style()
    figure = plot_frameworks(pd.read_csv(table))
    save(figure, targets)
    plt.close(figure)


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
        axes_row[0].set_yticks(range(len(contenders)), contenders)
        axes_row[0].set_ylim(len(contenders) - 0.4, -0.6)
        axes_row[0].set_ylabel(recipe, fontweight="bold")
    for axis, panel in zip(axes[0], PANELS, strict=True):
        axis.set_title(panel.title)
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
        low, high = (getattr(row, f"{panel.column}_{end}", None) for end in ("low", "high"))
        if pd.notna(low):
            axis.plot([low, high], [place, place], color=colour, linewidth=0.8, solid_capstyle="butt")
        axis.plot(value, place, "o", markersize=4, color=colour, mec="white", mew=0.3)
    axis.set_xlim(0, 1.15 * max(axis.get_xlim()[1], 1e-3))
    axis.grid(axis="y", visible=False)


def _note(rows: pd.DataFrame) -> str:
    shapes = rows[["d_model", "n_latents", "k", "batch_size", "steps", "threads", "device"]].drop_duplicates()
    said = "; ".join(
        f"{s.d_model} dimensions, {s.n_latents} latents, k {s.k:g}, {s.steps} steps of {s.batch_size} rows, "
        f"{s.threads} threads, {s.device}"
        for s in shapes.itertuples()
    )
    untested = rows[rows.dead_status == "untested"]
    silent = f"; silent on {untested.dead_tokens.min() / 1000:.0f}k tokens: untested, not dead" if len(untested) else ""
    return f"{said}{silent}\ngrey: redundancy of random dictionaries, ±2 sd"
