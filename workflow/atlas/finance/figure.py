"""Mixes side by side: what each sees of each corpus and of financial tokens, with intervals and every seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.figures.captions import counted_tokens, listed, name_models, saes, span
from atlas.figures.style import SERIES_COLOURS, WIDTH, draw
from atlas.studies.rows import read_rows

_MARKERS = ("o", "s", "^", "D", "v", "P")
_KINDS = ("number", "ratio", "entity", "other")
_GREY = "#777777"


@dataclass(frozen=True)
class Panel:
    """A quantity: its title, the column of each place on the x axis, and the columns of what it is held against."""

    title: str
    columns: dict[str, str]
    random: str = ""
    null: dict[str, str] | None = None
    zero: bool = False


PANELS = (
    Panel("explained variance, finance text", {k: f"explained_variance_{k}" for k in _KINDS}, "random_"),
    Panel(
        "gain in explained variance\nover the general mix",
        {k: f"gain_explained_variance_{k}" for k in _KINDS},
        zero=True,
    ),
    Panel("Δ loss, finance text (nats)", {k: f"delta_loss_{k}" for k in _KINDS}, zero=True),
    Panel(
        "latents of a kind",
        {kind: f"latents_{kind}" for kind in _KINDS[:3]},
        "random_",
        {kind: f"latents_{kind}_null_mean" for kind in _KINDS[:3]},
        zero=True,
    ),
    Panel(
        "active latents that change\non the same token",
        {"moved": "turnover_moved", "rewritten": "turnover_rewritten", "excess": "turnover_excess"},
        "random_",
        zero=True,
    ),
)


def draw_finance(table: Path, finance: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>.csv and results/<study>_finance.csv to every target (.pdf, .png)."""
    draw(plot_finance, describe_finance, targets, read_rows(table), read_rows(finance))


def describe_finance(table: pd.DataFrame, finance: pd.DataFrame) -> str:
    """The caption."""
    return (
        f"Study {listed(table.study)}: {saes(table)} of {listed(table.model)}, trained on as many rows of the mixes "
        f"{listed(finance.mix)}; explained variance on {counted_tokens(table)}, by kind of token on "
        f"{span(finance.n_tokens)} tokens of {listed(finance.corpus)}, latents of a kind, and what another template "
        "changes. Points: SAEs with 95 % intervals over documents; bars: random dictionaries; crosses: kinds "
        "displaced. Definitions: docs/metrics.md, section 15."
    )


def plot_finance(table: pd.DataFrame, finance: pd.DataFrame) -> Figure:
    """The figure of a study of training text; what is missing in the tables is missing in the figure."""
    mixes = list(dict.fromkeys(finance.mix))
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.2), layout="constrained")
    _draw(axes[0, 0], *_by_corpus(table), mixes)
    for axis, panel in zip(axes.flat[1:], PANELS, strict=True):
        _draw(axis, panel, finance, mixes)
    handles = [
        Line2D([], [], marker=_MARKERS[i], color=SERIES_COLOURS[i], linestyle="", markersize=4, label=f"{mix} mix")
        for i, mix in enumerate(mixes)
    ]
    handles += [
        Line2D([], [], marker="_", color=_GREY, linestyle="", markersize=6, label="random dictionary"),
        Line2D([], [], marker="x", color=_GREY, linestyle="", markersize=4, label="null: kinds displaced"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    name_models(figure, table)
    return figure


def _by_corpus(table: pd.DataFrame) -> tuple[Panel, pd.DataFrame]:
    """Explained variance on each evaluation corpus; one row per SAE, a column per corpus."""
    value, keys = "atlas_explained_variance_regular", ["mix", "hook", "recipe", "seed"]
    names = {
        value: "{}",
        f"{value}_interval_low": "{}_interval_low",
        f"{value}_interval_high": "{}_interval_high",
        "random_explained_variance_regular": "random_{}",
    }
    wide = table.pivot(index=keys, columns="corpus", values=list(names))
    wide.columns = [names[name].format(corpus) for name, corpus in wide.columns]
    corpora = list(dict.fromkeys(table.corpus))
    return Panel("explained variance by corpus", {name: name for name in corpora}, "random_"), wide.reset_index()


def _draw(axis: Axes, panel: Panel, rows: pd.DataFrame, mixes: list[str]) -> None:
    """Every SAE a point with its interval: mixes beside each other, seeds of a mix close together."""
    seeds = sorted(rows.seed.unique())
    step = 0.8 / max(1, len(mixes) * len(seeds))
    for place, column in enumerate(panel.columns.values()):
        for row in rows.to_dict("records"):
            if pd.isna(row.get(column)):
                continue
            number = mixes.index(row["mix"])
            colour = SERIES_COLOURS[number]
            x = place + step * (number * len(seeds) + seeds.index(row["seed"]) - (len(mixes) * len(seeds) - 1) / 2)
            low, high = (row.get(f"{column}_interval_{end}") for end in ("low", "high"))
            if pd.notna(low):
                axis.plot([x, x], [low, high], color=colour, linewidth=0.9, solid_capstyle="butt")
            axis.plot(x, row[column], _MARKERS[number], color=colour, markersize=3, mec="white", mew=0.3)
            if panel.random and pd.notna(row.get(f"{panel.random}{column}")):
                axis.plot(x, row[f"{panel.random}{column}"], "_", color=_GREY, markersize=3.5, mew=0.8)
            null = (panel.null or {}).get(list(panel.columns)[place])
            if null and pd.notna(row.get(null)):
                axis.plot(x, row[null], "x", color=_GREY, markersize=2.2, mew=0.7)
    if panel.zero:
        axis.axhline(0, color="#444444", linewidth=0.6)
    axis.set_xticks(range(len(panel.columns)), list(panel.columns), fontsize=6)  # "encyclopedia" is long
    axis.set_xlim(-0.55, len(panel.columns) - 0.45)
    axis.set_title(panel.title)
    axis.grid(axis="x", visible=False)
