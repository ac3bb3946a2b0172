"""Firing densities: a histogram for each SAE on text like its training's, beside its random dictionary."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.figures.captions import counted_tokens, listed, name_models, saes
from atlas.figures.series import sae_ids
from atlas.figures.style import SERIES_COLOURS, WIDTH, draw
from atlas.studies.rows import read_rows

_COLUMNS, _OWN, _RANDOM = 4, SERIES_COLOURS[0], "#7F7F7F"


def draw_densities(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_densities.csv to every target (.pdf, .png, .txt for the caption)."""
    draw(plot_densities, describe_densities, targets, read_rows(table))


def describe_densities(rows: pd.DataFrame) -> str:
    """The caption."""
    shown = rows[rows.role == "in_sample"]
    return (
        f"Firing densities of the latents of {saes(shown)} of {listed(shown.model)} on "
        f"{counted_tokens(shown, 'n_tokens')}: the share of latents in each half of a decade, and in each panel the "
        "share that never fires. A line is one SAE; grey is its random dictionary."
    )


def plot_densities(rows: pd.DataFrame) -> Figure:
    """The figure: a panel for each hook of each model."""
    shown = rows[rows.role == "in_sample"]
    places = shown.hook if shown.model.nunique() == 1 else shown.model + " " + shown.hook
    hooks = list(dict.fromkeys(places))
    n_columns = min(_COLUMNS, len(hooks))
    n_rows = -(-len(hooks) // n_columns)
    size = (WIDTH * max(n_columns, 2) / _COLUMNS, 1.9 * n_rows + 0.4)
    figure, _ = plt.subplots(n_rows, n_columns, figsize=size, sharex=True, sharey=True, layout="constrained")
    for axis, hook in zip(figure.axes, hooks, strict=False):
        _draw_panel(axis, shown[places == hook])
        axis.set_title(hook)
    for axis in figure.axes[len(hooks) :]:
        axis.set_visible(False)
    for axis in figure.axes[-n_columns:]:
        axis.set_xlabel("firing density")
    figure.axes[0].set_ylabel("share of latents")
    handles = [Line2D([], [], color=_OWN, label="SAE"), Line2D([], [], color=_RANDOM, label="random dictionary")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    name_models(figure, shown)
    return figure


def _draw_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """Lines of one hook, and how many latents never fire."""
    silent = {}
    for dictionary, colour in (("random", _RANDOM), ("sae", _OWN)):
        mine = rows[rows.dictionary == dictionary]
        for _, one in mine.groupby(sae_ids(mine), sort=False):
            bins = one[one.high > 0]
            axis.stairs(bins.share, [bins.high.iloc[0] / 10**0.5, *bins.high], color=colour, linewidth=0.9)
        silent[dictionary] = mine[mine.high == 0].share
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    never = " to ".join(dict.fromkeys(f"{100 * each:.0f}" for each in (silent["sae"].min(), silent["sae"].max())))
    axis.annotate(f"never: {never} %", (0.03, 0.92), xycoords="axes fraction", fontsize=6, color=_OWN)
