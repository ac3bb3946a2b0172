"""Provoked regimes: every cause a line, what it does to four measures, and what the taxonomy calls it."""

import re
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.config.study import Taxonomy
from atlas.evaluation.outcome import COPIES
from atlas.figures.captions import listed, name_models, saes, span
from atlas.figures.style import OUTCOME_COLOURS, WIDTH, draw, legend_point
from atlas.studies.rows import read_rows

_GREY, _FLOOR = "#777777", -0.12
_INKS = {"noisy": "#8A7F00", "unknown": "#666666"}  # as text on white, where the fill would be too pale
_AT = re.compile(r"dead_pct_at_(\d+)$")


def draw_regimes(table: Path, taxonomy: Taxonomy, targets: Sequence[Path]) -> None:
    """Draw results/<study>_regimes.csv to every target (.pdf, .png)."""
    rows = read_rows(table, keep_default_na=True)
    draw(partial(plot_regimes, taxonomy=taxonomy), describe_regimes, targets, rows)


def describe_regimes(table: pd.DataFrame) -> str:
    """The caption."""
    return (
        f"Study {listed(table.study)}: regimes provoked by one cause each, in {len(table)} judgements of "
        f"{saes(table)} of {listed(table.model)} on {listed(table.corpus)}; {int(table.as_intended.sum())} are called "
        "what was intended. A point is a seed, in the colour of its verdict; bars: 95 % intervals over documents; "
        "dashed: the limits of the taxonomy; grey: random dictionaries of the same shape. Filled points of silent "
        f"latents are counted on {span(table.dead_tokens)} tokens of training text, outlines on fewer. Definitions: "
        "docs/metrics.md, sections 7 and 16. Learnt: untested, for shifted rows have no twins (docs/twins.md)."
    )


def plot_regimes(table: pd.DataFrame, taxonomy: Taxonomy) -> Figure:
    """The figure of a study of causes: points are seeds, in the colour of their verdict; dashes are the limits."""
    causes = list(dict.fromkeys(zip(table.intended, table.cause, strict=True)))
    place = {cause: len(causes) - 1 - number for number, cause in enumerate(causes)}
    y = _spread(table, place)
    figure, axes = plt.subplots(
        1,
        5,
        figsize=(WIDTH, 0.8 + 0.44 * len(causes)),
        sharey=True,
        width_ratios=[3, 3, 3, 3, 2.2],
        layout="constrained",
    )
    _reconstruction(axes[0], table, y, taxonomy)
    counts = _deadness(axes[1], table, y, taxonomy)
    _redundancy(axes[2], table, y, taxonomy)
    _density(axes[3], table, y, taxonomy)
    _verdicts(axes[4], table, place)
    axes[0].set_yticks(list(place.values()), ["\n".join(textwrap.wrap(cause, 34)) for _, cause in place], fontsize=6.5)
    axes[0].set_ylim(-0.6, len(causes) - 0.4)
    for axis in axes[:4]:
        axis.grid(axis="y", visible=False)
        for level in range(1, len(causes)):
            axis.axhline(level - 0.5, color="#EEEEEE", linewidth=0.6, zorder=0)
    figure.legend(handles=_legend(counts), loc="outside lower center", ncols=6, frameon=False)
    name_models(figure, table)
    return figure


def _spread(table: pd.DataFrame, place: dict) -> pd.Series:
    """Height of each row: seeds of a cause close together."""
    seeds = sorted(table.seed.unique())
    step = min(0.2, 0.6 / len(seeds))
    lines = [place[key] for key in zip(table.intended, table.cause, strict=True)]
    offsets = [step * (seeds.index(seed) - (len(seeds) - 1) / 2) for seed in table.seed]
    return pd.Series(lines, table.index) - pd.Series(offsets, table.index)


def _points(axis: Axes, x: pd.Series, y: pd.Series, table: pd.DataFrame, size: float = 16) -> None:
    colours = [OUTCOME_COLOURS[verdict] for verdict in table.outcome]
    axis.scatter(x, y, s=size, c=colours, edgecolors="#444444", linewidths=0.4, zorder=3)


def _limits(axis: Axes, *limits: float) -> None:
    for limit in limits:
        axis.axvline(limit, color="#444444", linewidth=0.6, linestyle=(0, (3, 2)), zorder=1)


def _reconstruction(axis: Axes, table: pd.DataFrame, y: pd.Series, taxonomy: Taxonomy) -> None:
    value = table.explained_variance_regular
    axis.hlines(
        y,
        table.explained_variance_regular_interval_low.clip(lower=_FLOOR),
        table.explained_variance_regular_interval_high.clip(lower=_FLOOR),
        color="#444444",
        linewidth=0.7,
    )
    inside = value >= _FLOOR
    _points(axis, value[inside], y[inside], table[inside])
    for row in table[~inside].index:
        colour = OUTCOME_COLOURS[table.outcome[row]]
        axis.plot(_FLOOR, y[row], "<", color=colour, markersize=4, mec="#444444", mew=0.4, clip_on=False)
        axis.annotate(
            f"{value[row]:.3g}", (_FLOOR, y[row]), (5, 0), textcoords="offset points", fontsize=5, va="center"
        )
    _limits(axis, taxonomy.failed_below, taxonomy.weak_below, taxonomy.deceptive_reconstruction)
    axis.set(title="explained variance", xlim=(_FLOOR, 1.03))


def _deadness(axis: Axes, table: pd.DataFrame, y: pd.Series, taxonomy: Taxonomy) -> list[str]:
    """Silent latents on few tokens in outline, on all of them filled; returns what the outlines stand for."""
    few = [(int(match[1]), name) for name in table if (match := _AT.match(name))]
    for (_, name), marker in zip(sorted(few), ("^", "s", "D"), strict=False):
        axis.plot(table[name], y, marker, mfc="none", color=_GREY, markersize=3, mew=0.6, linestyle="")
    for row in table.index:
        axis.plot(
            [table[name][row] for _, name in sorted(few)] + [table.dead_pct[row]],
            [y[row]] * (len(few) + 1),
            color=_GREY,
            linewidth=0.5,
            zorder=1,
        )
    _points(axis, table.dead_pct, y, table)
    _limits(
        axis, *(100 * v for v in (taxonomy.unhealthy_dead_above, taxonomy.deceptive_dead_above, taxonomy.dead_above))
    )
    axis.set(title="silent latents (%)", xlim=(-4, 104))
    return [f"silent on {number:,} tokens" for number, _ in sorted(few)]


def _redundancy(axis: Axes, table: pd.DataFrame, y: pd.Series, taxonomy: Taxonomy) -> None:
    axis.plot(table[f"{COPIES}_null_mean"], y, "|", color=_GREY, markersize=5, mew=0.9, linestyle="")
    _points(axis, table[COPIES], y, table)
    _limits(axis, taxonomy.unhealthy_share_above, taxonomy.duplicated_share_above)
    axis.set(title="copies\n(share of latents)", xlim=(-0.04, 1.04))


def _density(axis: Axes, table: pd.DataFrame, y: pd.Series, taxonomy: Taxonomy) -> None:
    _points(axis, table.dense_pct, y, table)
    _limits(axis, 100 * taxonomy.dense_above)
    axis.set(title="dense latents (%)", xlim=(-4, 104))


def _verdicts(axis: Axes, table: pd.DataFrame, place: dict) -> None:
    """Return what was intended, and how often it was said."""
    for (intended, cause), line in place.items():
        mine = table[(table.intended == intended) & (table.cause == cause)]
        hits = int((mine.outcome == intended).sum())
        said = ", ".join(f"{name} {n}" for name, n in mine.outcome[mine.outcome != intended].value_counts().items())
        axis.text(0, line + 0.02, intended, color=_ink(intended), fontsize=7, weight="bold", va="bottom")
        axis.text(0, line - 0.02, f"{hits} of {len(mine)}" + (f"; {said}" if said else ""), fontsize=6, va="top")
    axis.set(title="intended; called so", xlim=(0, 1))
    axis.title.set_horizontalalignment("left")
    axis.title.set_x(0)
    axis.axis("off")


def _ink(outcome: str) -> str:
    return _INKS.get(outcome, OUTCOME_COLOURS[outcome])


def _legend(counts: list[str]) -> list[Line2D]:
    handles = [legend_point(marker="o", color="#FFFFFF", mec="#444444", mew=0.6, label="a seed, by its verdict")]
    for marker, label in zip(("^", "s", "D"), counts, strict=False):
        handles.append(legend_point(marker=marker, mfc="none", color=_GREY, mew=0.6, label=label))
    handles.append(legend_point(marker="|", color=_GREY, mew=0.9, label="random dictionary"))
    return [
        *handles,
        Line2D([], [], color="#444444", linewidth=0.6, linestyle=(0, (3, 2)), label="limits of the taxonomy"),
    ]
