"""SAEs at home and away: what they explain, whether the same latents fire, beside what chance would do."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.figures.captions import listed, name_models, saes
from atlas.figures.style import OUTCOME_COLOURS, ROLE_MARKERS, ROLE_NAMES, WIDTH, draw, legend_point
from atlas.studies.rows import read_rows
from atlas.twins.learnt import UNTESTED, with_learnt

_GREY, _HOME, _FLOOR = "#777777", "#444444", -0.5


def draw_transfer(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_transfer.csv to every target (.pdf, .png)."""
    draw(plot_transfer, describe_transfer, targets, read_rows(table))


def describe_transfer(table: pd.DataFrame) -> str:
    """The caption."""
    return (
        f"Study {listed(table.study)}: {saes(table)} of {listed(table.model)} judged where they were trained (rings) "
        f"and under the shifts {listed(table['shift'])} (filled, in the colour of the verdict), on "
        f"{listed(table.corpus)}: explained variance without massive activations, drift of firing rates, active "
        "latents that change on the same token, and the correlation of each latent with itself. Grey bars: chance. "
        "Definitions: docs/metrics.md, section 17."
    )


def plot_transfer(table: pd.DataFrame) -> Figure:
    """A line per SAE and shift; filled points away in the colour of their verdict, rings at home, bars of chance."""
    table = table.assign(line=[f"{row.hook}, {row.shift}" for row in table.itertuples()])
    lines = list(dict.fromkeys(table.line))[::-1]
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 1.1 + 0.36 * len(lines)), sharey=True, layout="constrained")
    y = _heights(table, lines)
    _explained(axes[0], table, y)
    _against(
        axes[1],
        table,
        y,
        "usage_js_divergence_value",
        "usage_js_divergence_null_mean",
        "drift of firing rates\n(JS divergence, bits)",
    )
    _against(axes[2], table, y, "token_turnover", "token_turnover_displaced", "latents that change\non the same token")
    _against(
        axes[3],
        table,
        y,
        "token_correlation_median",
        "token_correlation_displaced_median",
        "correlation of a latent\nwith itself (median)",
    )
    axes[0].set_yticks(range(len(lines)), lines, fontsize=6.5)
    for axis in axes:
        axis.grid(axis="y", visible=False)
    figure.legend(handles=_legend(table), loc="outside lower center", ncols=6, frameon=False)
    name_models(figure, table)
    return figure


def _heights(table: pd.DataFrame, lines: list[str]) -> pd.Series:
    """Corpora of a line below each other, seeds of a corpus close together."""
    corpora, seeds = list(dict.fromkeys(table.corpus)), sorted(table.seed.unique())
    step = 0.8 / (len(corpora) * len(seeds))
    places = [
        lines.index(row.line) + 0.4 - step * (corpora.index(row.corpus) * len(seeds) + seeds.index(row.seed) + 0.5)
        for row in table.itertuples()
    ]
    return pd.Series(places, table.index)


def _explained(axis: Axes, table: pd.DataFrame, y: pd.Series) -> None:
    away, home = (table[f"explained_variance_regular_{side}"].clip(lower=_FLOOR) for side in ("away", "home"))
    axis.hlines(y, away, home, color="#BBBBBB", linewidth=0.7, zorder=1)
    axis.plot(home, y, "o", mfc="white", color=_HOME, markersize=3, mew=0.6, linestyle="")
    _points(axis, away, y, table)
    axis.set(title="explained variance\n(at −.5: there or below)", xlim=(_FLOOR - 0.05, 1.03))


def _against(axis: Axes, table: pd.DataFrame, y: pd.Series, value: str, chance: str, title: str) -> None:
    """A number and what chance gives for it; neither where tokens cannot be matched."""
    if value in table:
        axis.plot(table[chance], y, "|", color=_GREY, markersize=4, mew=0.9, linestyle="")
        _points(axis, table[value], y, table)
    axis.set(title=title, xlim=(-0.05, 1.05))


def _points(axis: Axes, x: pd.Series, y: pd.Series, table: pd.DataFrame) -> None:
    for role, marker in ROLE_MARKERS.items():
        mine = table.role == role
        colours = [OUTCOME_COLOURS[verdict] for verdict in table.outcome_away[mine]]
        axis.scatter(x[mine], y[mine], s=13, c=colours, marker=marker, edgecolors="#444444", linewidths=0.4, zorder=3)


def _legend(table: pd.DataFrame) -> list[Line2D]:
    handles = [
        legend_point(
            marker=ROLE_MARKERS[role], color="#BBBBBB", mec="#444444", mew=0.6, label=f"away, {ROLE_NAMES[role]}"
        )
        for role in ROLE_MARKERS
        if role in set(table.role)
    ]
    handles.append(legend_point(marker="o", mfc="white", color=_HOME, mew=0.6, label="at home"))
    handles.append(legend_point(marker="|", color=_GREY, mew=0.9, label="chance"))
    verdicts = dict.fromkeys(table.outcome_away)
    return handles + [
        legend_point(marker="s", color=OUTCOME_COLOURS[name], label=with_learnt(name, UNTESTED)) for name in verdicts
    ]
