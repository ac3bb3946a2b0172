"""Draw what a dictionary gains from more training rows, quantity by quantity, between floor and ceiling."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from atlas.errors import EvaluationError
from atlas.figures.captions import listed, name_models, saes
from atlas.figures.series import series_colours
from atlas.figures.style import WIDTH, draw, legend_point
from atlas.studies.rows import read_rows

TITLES = {
    "explained_variance": "explained variance\n(without massive activations)",
    "loss": "loss recovered\nover the mean row",
    "delta_loss": "loss added by splicing\n(in the objective's units)",
    "stability": "share of latents\nin another seed",
    "coherence": "share of latents\ncoherent",
    "labels": "share of latents told\nby token or label",
}
_COLUMNS = 3
_GREY, _INK = "#777777", "#333333"


def draw_budget(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_budget.csv to every target (.pdf, .png, .txt for the caption)."""
    draw(plot_budget, describe_budget, targets, read_rows(table))


def describe_budget(rows: pd.DataFrame) -> str:
    """Return the caption."""
    sizes, budgets = (
        listed(f"{value:,.0f}" for value in sorted(rows[name].unique())) for name in ("n_latents", "rows")
    )
    twins = " Diamonds: the best twin." if _has_twins(rows) else ""
    return (
        f"Study {listed(rows.study)}: {saes(rows)} of {listed(rows.model)} at {listed(rows.hook)} with {sizes} "
        f"latents, trained on {budgets} rows, on held-out {listed(rows.corpus)}. Points: an SAE with its 95 % "
        f"interval; lines join means of seeds.{twins} Dotted: the floor (random dictionary, or mean row); dashed: the "
        "ceiling (latents planted in the same text, two dictionaries with the same directions, or the clean model). "
        "Definitions: docs/metrics.md, sections 20 and 21."
    )


def plot_budget(rows: pd.DataFrame) -> Figure:
    """Rows of training along x, a panel for each quantity with a value; a colour for each size and k.

    Raises EvaluationError when the rows have only one budget.
    """
    budgets = sorted(rows["rows"].unique())
    if len(budgets) < 2:
        raise EvaluationError(
            f"study {listed(rows.study)} has SAEs of one budget, {budgets[0]:,.0f} rows; expected two at least"
        )
    shown = [name for name in TITLES if rows[f"{name}_value"].notna().any()]
    if not shown:
        raise EvaluationError(f"study {listed(rows.study)} has no value of {listed(TITLES)}; make its tables again")
    sizes = rows[["n_latents", "k"]].drop_duplicates().sort_values(["n_latents", "k"])
    colours = series_colours(_size_names(sizes))
    rows = rows.assign(size=_size_names(rows))
    lines = -(-len(shown) // _COLUMNS)
    figure, grid = plt.subplots(
        lines, _COLUMNS, figsize=(WIDTH, 0.5 + 1.95 * lines), sharex=True, squeeze=False, layout="constrained"
    )
    for axis in grid.flat[len(shown) :]:
        axis.remove()
    for axis, name in zip(grid.flat, shown, strict=False):
        axis.set_title(TITLES[name])
        for size, group in rows.groupby("size"):
            _draw_quantity(axis, group, name, colours[str(size)])
        _set_axes(axis, budgets)
    figure.legend(handles=_legend(rows, colours), loc="outside lower center", ncols=6, frameon=False)
    name_models(figure, rows)
    return figure


def _size_names(rows: pd.DataFrame) -> list[str]:
    """Name the size of each row's SAE: ``F = 4,608, k = 24``; architectures without k have none."""
    ks = ["" if pd.isna(k) else f", k = {k:g}" for k in rows.k]
    return [f"F = {size:,.0f}{k}" for size, k in zip(rows.n_latents, ks, strict=True)]


def _draw_quantity(axis: Axes, group: pd.DataFrame, name: str, colour: Any) -> None:
    for end, style in (("floor", (0, (1, 1.5))), ("ceiling", (0, (4, 2)))):
        means = group.groupby("rows")[f"{name}_{end}"].mean().dropna()
        axis.plot(means.index, means, color=_GREY, linewidth=0.8, linestyle=style)
    twins = group.groupby("rows")[f"{name}_twin"].mean().dropna()
    axis.plot(twins.index, twins, color=_INK, linewidth=0.6, marker="d", mfc="white", markersize=3.6, mew=0.7)
    means = group.groupby("rows")[f"{name}_value"].mean().dropna()
    axis.plot(means.index, means, color=colour, linewidth=0.9)
    ends = [group[f"{name}_interval_{end}"] for end in ("low", "high")]
    axis.vlines(group["rows"], *ends, color=colour, linewidth=0.8)
    axis.plot(group["rows"], group[f"{name}_value"], "o", color=colour, markersize=3.4, mec="white", mew=0.3)


def _set_axes(axis: Axes, budgets: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(budgets))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([_short(value) for value in budgets])
    room = (budgets[-1] / budgets[0]) ** 0.06
    axis.set_xlim(budgets[0] / room, budgets[-1] * room)
    low, high = axis.get_ylim()
    axis.set_ylim(min(0.0, low), high + 0.03 * (high - low))
    axis.set_xlabel("training rows")
    axis.xaxis.set_tick_params(labelbottom=True)


def _short(number: float) -> str:
    """``205k``, ``2.0M``."""
    power = 1_000_000 if number >= 999_500 else 1_000
    digits = 1 if number / power < 10 - 0.05 else 0
    return f"{np.round(number / power, digits):.{digits}f}{'M' if power == 1_000_000 else 'k'}"


def _has_twins(rows: pd.DataFrame) -> bool:
    return any(rows[f"{name}_twin"].notna().any() for name in TITLES)


def _legend(rows: pd.DataFrame, colours: Mapping[str, Any]) -> list[Line2D]:
    return [
        *(
            Line2D([], [], color=colour, marker="o", markersize=3.4, linewidth=0.9, label=name)
            for name, colour in colours.items()
        ),
        *([legend_point(marker="d", color=_INK, mfc="white", label="best twin")] if _has_twins(rows) else []),
        Line2D([], [], color=_GREY, linewidth=0.8, linestyle=(0, (4, 2)), label="ceiling"),
        Line2D([], [], color=_GREY, linewidth=0.8, linestyle=(0, (1, 1.5)), label="floor"),
    ]
