"""Dictionaries of one hook in several sizes: what grows with the number of latents, and what gets worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from atlas.errors import EvaluationError
from atlas.figures.captions import counted_tokens, listed, name_models, saes
from atlas.figures.series import series_colours
from atlas.figures.style import ROLE_MARKERS, ROLE_NAMES, WIDTH, draw, legend_point
from atlas.studies.rows import read_rows

_NULL = "#777777"
_ROLE_LINES = {"in_sample": "-", "proxy": (0, (4, 1.5)), "oos": (0, (1, 1.2))}
_CELL = ["model", "hook", "mix", "recipe", "seed"]


@dataclass(frozen=True)
class Panel:
    """One quantity of the study table: its column, and the column of what random dictionaries score."""

    title: str
    column: str
    null: str | None = None
    by_corpus: bool = True
    limits: tuple[float, float] | None = None


PANELS = (
    Panel(
        "explained variance\n(without massive activations)",
        "atlas_explained_variance_regular",
        "random_explained_variance_regular",
    ),
    Panel("loss added by splicing\n(in the objective's units)", "atlas_delta_loss"),
    Panel("latents that fire on\nmore than 10 % of tokens (%)", "atlas_dense_pct", limits=(-3, 103)),
    Panel(
        "redundancy\n(absorption of the guide)",
        "redundancy_absorption_guide_value",
        "redundancy_absorption_guide_null_mean",
        by_corpus=False,
    ),
    Panel("silent latents (%)", "atlas_dead_pct"),
)


def draw_width(table: Path, labels: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>.csv and results/<study>_autointerp.csv to every target (.pdf, .png, .txt)."""
    draw(plot_width, describe_width, targets, read_rows(table), read_rows(labels))


def describe_width(table: pd.DataFrame, labels: pd.DataFrame) -> str:
    """The caption."""
    scored = _scores(table, labels)
    sizes, ks = ([f"{value:,.0f}" for value in sorted(table[key].unique())] for key in ("n_latents", "k"))
    return (
        f"Study {listed(table.study)}: {saes(table)} of {listed(table.model)} at {listed(table.hook)} with "
        f"{listed(sizes)} latents, k = {listed(ks)}, judged on {counted_tokens(table)}. Points: an SAE; lines join "
        f"means of seeds; bars: 95 % intervals, over documents for reconstruction and loss, over latents for labels. "
        f"Crosses: random dictionaries of the same shape. Labels by explainer {listed(scored.explainer)}, scored by "
        f"{listed(scored.scorer)} on random negatives. Definitions: docs/metrics.md, sections 2 to 5 and 14."
    )


def plot_width(table: pd.DataFrame, labels: pd.DataFrame) -> Figure:
    """Latents along x, a colour for each k; points are seeds with their 95 % intervals, lines join their means.

    Of `labels`, the first explainer and scorer on random negatives. Raises EvaluationError when labels are of an SAE
    that the table has not, or of none at all.
    """
    scored = _scores(table, labels)
    colours = series_colours(sorted(table.k.unique()))
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.4), sharex=True, layout="constrained")
    for axis, panel in zip(axes.flat, PANELS, strict=False):
        _draw_panel(axis, table, panel, colours)
    _note_silence(axes.flat[4], table)
    _draw_labels(axes.flat[5], scored, colours)
    sizes = sorted(table.n_latents.unique())
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(sizes))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{size:,}" for size in sizes])
        axis.set_xlim(sizes[0] / 1.35, sizes[-1] * 1.35)
    for axis in axes[1]:
        axis.set_xlabel("latents")
    figure.legend(handles=_legend(table, colours), loc="outside lower center", ncols=4, frameon=False)
    name_models(figure, table)
    return figure


def _scores(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Rows of the labels, both dictionaries, with the number of latents and k of their SAE."""
    rows = labels[labels.negatives == "random"]
    if rows.empty:
        raise EvaluationError(
            f"no label of study {', '.join(map(str, table.study.unique()))} was scored on random negatives; expected "
            "rows with negatives = random in its results/<study>_autointerp.csv: see section `autointerp` of the config"
        )
    rows = rows[(rows.explainer == rows.explainer.iloc[0]) & (rows.scorer == rows.scorer.iloc[0])]
    cells = table[[*_CELL, "n_latents", "k"]].drop_duplicates()
    merged = rows.drop(columns=["n_latents", "k"], errors="ignore").merge(cells, on=_CELL, how="left")
    strange = merged[merged.n_latents.isna()]
    if len(strange):
        first = "/".join(str(strange.iloc[0][key]) for key in _CELL)
        raise EvaluationError(
            f"labels of {first}, which is not in the table of its study; make results/<study>_autointerp.csv again"
        )
    return merged


def _draw_panel(axis: Axes, table: pd.DataFrame, panel: Panel, colours: Mapping[Any, Any]) -> None:
    axis.set_title(panel.title)
    rows = table if panel.by_corpus else table.drop_duplicates(_CELL)
    if panel.null:
        _draw_null(axis, rows, panel, colours)
    for (k, role), group in rows.groupby(["k", "role"]):
        line = _ROLE_LINES[role] if panel.by_corpus else "-"
        means = group.groupby("n_latents")[panel.column].mean()
        axis.plot(means.index, means, color=colours[k], linewidth=0.9, linestyle=line)
        marker = ROLE_MARKERS[role] if panel.by_corpus else "D"
        _points(axis, group, panel.column, colours[k], marker=marker, mec="white", mew=0.3)
    if panel.limits:
        axis.set_ylim(*panel.limits)
    elif rows[panel.column].min() >= 0:
        axis.set_ylim(0, 1.08 * axis.get_ylim()[1])


def _draw_null(axis: Axes, rows: pd.DataFrame, panel: Panel, colours: Mapping[Any, Any]) -> None:
    """Return what random dictionaries score: means over seeds and corpora, grey where k has no part in it."""
    for k, group in rows.groupby("k"):
        means = group.groupby("n_latents")[panel.null].mean()
        colour = colours[k] if panel.by_corpus else _NULL
        axis.plot(means.index, means, "x", color=colour, linestyle=(0, (1, 2)), linewidth=0.7, markersize=3, mew=0.7)


def _points(axis: Axes, group: pd.DataFrame, column: str, colour: str, **style: Any) -> None:
    """A point a row; its interval, where the table has one."""
    ends = [f"{column}_interval_{end}" for end in ("low", "high")]
    if set(ends) <= set(group):
        axis.vlines(group.n_latents, group[ends[0]], group[ends[1]], color=colour, linewidth=0.7)
    axis.plot(group.n_latents, group[column], color=colour, linestyle="", markersize=3.6, **style)


def _note_silence(axis: Axes, table: pd.DataFrame) -> None:
    """Say so in the panel when silent latents were not looked at for long enough to be called dead."""
    untested = table[table.atlas_dead_status == "untested"]
    if len(untested):
        tokens = f"{untested.atlas_dead_tokens.min() / 1000:.0f}k"
        note = f"on {tokens} tokens:\nuntested, not dead"
        axis.annotate(note, (0.04, 0.96), xycoords="axes fraction", fontsize=6, va="top")


def _draw_labels(axis: Axes, scored: pd.DataFrame, colours: Mapping[Any, Any]) -> None:
    axis.set_title("label quality\n(AUC; chance is .5)")
    for (k, dictionary), group in scored.groupby(["k", "dictionary"]):
        means = group.groupby("n_latents").score.mean()
        if dictionary == "sae":
            axis.plot(means.index, means, color=colours[k], linewidth=0.9)
            _points(axis, group, "score", colours[k], marker="D", mec="white", mew=0.3)
        else:
            axis.plot(means.index, means, color=colours[k], linewidth=0.7, linestyle=(0, (1, 2)))
            _points(axis, group, "score", colours[k], marker="x", mew=0.7)
    axis.axhline(0.5, color="#666666", linewidth=0.7, linestyle=(0, (4, 2)))
    if scored.score.notna().any():
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.49), max(high, 0.51))
    else:
        axis.annotate("no label has a score", (0.5, 0.4), xycoords="axes fraction", fontsize=6, ha="center")


def _legend(table: pd.DataFrame, colours: Mapping[Any, Any]) -> list[Line2D]:
    handles = [Line2D([], [], color=colour, label=f"k = {k:g}") for k, colour in colours.items()]
    for role, corpus in table[["role", "corpus"]].drop_duplicates().itertuples(index=False):
        handles.append(
            Line2D(
                [],
                [],
                color="#444444",
                linewidth=0.9,
                linestyle=_ROLE_LINES[role],
                marker=ROLE_MARKERS[role],
                markersize=3.6,
                label=f"{ROLE_NAMES[role]} ({corpus})",
            )
        )
    handles.append(legend_point(marker="D", color="#444444", label="one value for all corpora"))
    return [*handles, legend_point(marker="x", color=_NULL, label="random dictionary")]
