"""Both ends of every scale: each measure of each SAE between its floor and its ceiling, with the word for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atlas.figures.captions import listed, name_models, saes
from atlas.figures.series import sae_ids
from atlas.figures.style import WIDTH, legend_point, save, use_style
from atlas.studies.rows import read_rows
from atlas.twins.learnt import NO, UNRESOLVED, UNTESTED, YES
from atlas.usefulness.scale import COHERENCE, LABELS, LEARNT, LOSS, MEASURES, STABILITY

TITLES = {
    LOSS: "loss recovered\nover the mean row",
    COHERENCE: "share of latents\ncoherent",
    STABILITY: "share of latents\nin another seed",
    LABELS: "share of latents told\nby token or label",
    LEARNT: "explained variance\nover the best twin",
}
_COLOURS = {YES: "#009E73", NO: "#D55E00", UNRESOLVED: "#E69F00", UNTESTED: "#7F7F7F"}
_MARKERS = {YES: "o", NO: "X", UNRESOLVED: "D", UNTESTED: "o"}
_SCALE, _ENDS, _INK = "#D9D9D9", "#9A9A9A", "#333333"
_NAMING = ("model", "hook", "target_hook", "mix", "recipe", "seed")


def draw_usefulness(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_usefulness.csv to every target (.pdf, .png, .txt for the caption)."""
    use_style()
    rows = read_rows(table)
    figure = plot_usefulness(rows)
    save(figure, targets, describe_usefulness(rows))
    plt.close(figure)


def describe_usefulness(rows: pd.DataFrame) -> str:
    """The caption; the words of all SAEs stand in it."""
    words = rows.useful.value_counts()
    said = listed(f"{word} {count}" for word, count in words.items())
    missing = [name for name in MEASURES if (rows[f"{name}_word"] == UNTESTED).all()]
    absent = f" Not tested: {listed(missing)}." if missing else ""
    return (
        f"Study {listed(rows.study)}: both ends of every scale, {saes(rows)} of {listed(rows.model)} on held-out "
        f"{listed(rows.corpus)}. Bar: from the floor (random dictionary, or mean row) to the ceiling (latents planted "
        "in the same text, two dictionaries with the same directions, or the clean model); line across: the threshold; "
        "diamond: the best twin; point: the SAE with its 95 % interval, its colour the word of the measure. Right: "
        f"useful ({said}), and the outcome.{absent} Definitions: docs/metrics.md, section 20."
    )


def plot_usefulness(rows: pd.DataFrame) -> Figure:
    """The figure: a line for each SAE, a panel for each measure that any of them has."""
    names = _names(rows)
    height = 1.25 + 0.24 * len(rows)
    shown = [name for name in MEASURES if rows[f"{name}_value"].notna().any()] or [LOSS]
    # Names of SAEs and the words take the place of about two panels.
    size = (WIDTH * (2 + len(shown)) / (2 + len(MEASURES)), height)
    figure, grid = plt.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False, layout="constrained")
    axes, records = grid[0], rows.to_dict("records")
    for axis, name in zip(axes, shown, strict=True):
        _draw_panel(axis, name, records)
    axes[0].set_yticks(range(len(names)), names, fontsize=6)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for y, row in enumerate(records):
        axes[-1].annotate(
            f"{row['useful']} · {row['outcome']}",
            (1.03, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=6,
            color=_COLOURS[row["useful"]],
        )
    axes[-1].annotate("useful · outcome", (1.03, -0.8), xycoords=("axes fraction", "data"), va="center", fontsize=6)
    figure.legend(handles=_legend(rows), loc="outside lower center", ncols=len(shown) + 1, frameon=False)
    name_models(figure, rows)
    return figure


def _names(rows: pd.DataFrame) -> list[str]:
    """Return what tells an SAE from the others of the study."""
    telling = [name for name in _NAMING if name in rows and rows[name].nunique() > 1]
    if not telling:
        return sae_ids(rows)
    parts = rows[telling].astype(object).where(rows[telling].notna(), None)
    return [
        " ".join(f"seed {value}" if name == "seed" else str(value) for name, value in own.items() if value is not None)
        for own in parts.to_dict("records")
    ]


def _draw_panel(axis: Axes, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    axis.set_title(TITLES[name], fontsize=7)
    axis.grid(axis="y", visible=False)
    for y, row in enumerate(records):
        word, value = row[f"{name}_word"], row[f"{name}_value"]
        floor, end, threshold = (row[f"{name}_{each}"] for each in ("floor", "ceiling", "threshold"))
        if pd.notna(floor) and pd.notna(end):
            axis.plot([floor, end], [y, y], color=_SCALE, linewidth=5, solid_capstyle="butt", zorder=1)
            axis.plot([floor, end], [y, y], "|", color=_ENDS, markersize=5, mew=0.8, zorder=1)
        if pd.notna(threshold):
            axis.plot([threshold] * 2, [y - 0.33, y + 0.33], color=_INK, linewidth=0.9, zorder=2)
        if pd.isna(value):
            continue
        twin = row[f"{name}_over_twin"]
        if name != LEARNT and pd.notna(twin):
            axis.plot(value - twin, y, "d", color=_INK, mfc="white", markersize=3.4, mew=0.7, zorder=3)
        ends = [row[f"{name}_interval_{each}"] for each in ("low", "high")]
        if all(map(pd.notna, ends)):
            axis.plot(ends, [y, y], color=_COLOURS[word], linewidth=1.0, zorder=4)
        axis.plot(value, y, _MARKERS[word], color=_COLOURS[word], markersize=4, mec="white", mew=0.3, zorder=5)
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, -0.03 * high), high)


def _legend(rows: pd.DataFrame) -> list[Line2D | Patch]:
    shown = set(rows[[f"{name}_word" for name in MEASURES if rows[f"{name}_value"].notna().any()]].to_numpy().ravel())
    twins = any(rows[f"{name}_over_twin"].notna().any() for name in MEASURES if name != LEARNT)
    return [
        *(legend_point(marker=_MARKERS[word], color=_COLOURS[word], label=word) for word in _COLOURS if word in shown),
        Patch(color=_SCALE, label="floor to ceiling"),
        Line2D([], [], color=_INK, linewidth=0.9, label="threshold"),
        *([legend_point(marker="d", color=_INK, mfc="white", label="best twin")] if twins else []),
    ]
