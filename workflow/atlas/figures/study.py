"""The case-study table as small multiples: one column per quantity, one row per protocol, layers along x."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atlas.figures.captions import counted_tokens, listed, name_models, saes
from atlas.figures.style import OUTCOME_COLOURS, ROLE_MARKERS, ROLE_NAMES, WIDTH, draw
from atlas.studies.rows import read_rows
from atlas.twins.learnt import UNTESTED, with_learnt


@dataclass(frozen=True)
class Panel:
    """One quantity: its column, for the guide's protocol the published column, and a second column of the same kind."""

    title: str
    column: str
    published: str | None = None
    limits: tuple[float, float] | None = None
    hollow: str | None = None


PANELS = {
    "guide": [
        Panel("loss recovered (%)", "guide_loss_recovered_pct", "published_loss_recovered_pct", (-5, 105)),
        Panel("L0", "guide_l0", "published_l0"),
        Panel("dead (%)", "guide_dead_pct", "published_dead_pct", (-5, 105)),
        Panel("absorption", "guide_absorption", "published_absorption"),
    ],
    "atlas": [
        Panel("loss recovered (%)", "atlas_loss_recovered_zero", None, (-5, 105), "atlas_loss_recovered_mean_regular"),
        Panel("L0", "atlas_l0"),
        Panel("dead (%)", "atlas_dead_pct", None, (-5, 105)),
        Panel("absorption", "redundancy_absorption_guide_value"),
    ],
}
# Shares below are drawn here as a number above a triangle, or the others would be one line.
_FLOOR = -100.0
# In a study with twins: what the best of them recovers against mean ablation, which is drawn hollow.
_TWIN = "best_twin_value_loss_recovered_mean_regular"
PROTOCOL_OUTCOME = {"guide": "guide_outcome", "atlas": "outcome"}


def draw_study(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>.csv to every target (.pdf, .png)."""
    draw(plot_study, describe_study, targets, read_rows(table))


def describe_study(rows: pd.DataFrame) -> str:
    """The caption."""
    published = rows.published_model.dropna().unique()
    hollow = f" Hollow diamonds: published for {listed(published)}." if len(published) else ""
    return (
        f"Study {listed(rows.study)}: {saes(rows)} of {listed(rows.model)}, judged on {counted_tokens(rows)}. Rows: "
        "what the guide's protocol and ours measure of the same SAEs. Points: an SAE on a corpus, in the colour of "
        "its outcome; bars: 95 % intervals over documents. Grey: random dictionaries of the same shape, mean and two "
        f"standard deviations.{hollow}{_twins_said(rows)} Loss recovered under our protocol: filled against zero "
        "ablation, hollow against the mean row with massive activations left as they are. Zero ablation can cost more "
        "than a uniform guess; then the share against the mean says more. Definitions: docs/metrics.md, sections 2 to "
        "7."
    )


def _twins_said(rows: pd.DataFrame) -> str:
    """Say for the caption what the twins are, and what the word beside an outcome means."""
    if _TWIN not in rows:
        return " Learnt: untested, for this study has no twins (docs/twins.md)."
    return (
        " Dashes: the best twin, a trained null, against the mean row. Learnt: whether explained variance is above "
        "the best twin's (docs/twins.md)."
    )


def plot_study(rows: pd.DataFrame) -> Figure:
    """The figure of a study table; what is missing in the table is missing in the figure."""
    shares = [column for column in rows if column.startswith("atlas_loss_recovered_") or column == _TWIN]
    rows = rows.assign(**{column: rows[column] * 100 for column in shares})
    # A transcoder stands beside the SAE of the hook that it reads.
    pairs = zip(rows.hook, rows.target_hook, strict=True)
    rows = rows.assign(hook=[hook if pd.isna(target) else f"{hook} to {target}" for hook, target in pairs])
    hooks = rows[["hook", "layer", "n_latents"]].drop_duplicates().sort_values(["layer", "hook", "n_latents"])
    places = {(hook.hook, hook.n_latents): number for number, hook in enumerate(hooks.itertuples())}
    figure, axes = plt.subplots(2, 4, figsize=(WIDTH, 3.6), sharex=True, layout="constrained")
    for axes_row, (protocol, panels) in zip(axes, PANELS.items(), strict=True):
        for axis, panel in zip(axes_row, panels, strict=True):
            _draw_panel(axis, rows, panel, protocol, places)
            axis.set_xticks(range(len(places)), [_place_name(hook) for hook in hooks.itertuples()])
            axis.set_xlim(-0.6, len(places) - 0.4)
        axes_row[0].set_ylabel(f"{protocol} protocol", fontweight="bold")
    _share_limits(axes[:, 3])
    axes[1, 0].annotate(
        "filled: zero ablation\nhollow: mean ablation", (0.04, 0.03), xycoords="axes fraction", fontsize=6
    )
    _note_untested(axes[1, 2], rows)
    for axis, panel in zip(axes[0], PANELS["guide"], strict=True):
        axis.set_title(panel.title)
    for axis in axes[1]:
        axis.set_xlabel("layer / latents")
    _legend(figure, rows)
    name_models(figure, rows)
    return figure


def _place_name(hook: Any) -> str:
    transcoder = "\ntranscoder" if " to " in hook.hook else ""
    return f"{hook.layer}\n{hook.n_latents}{transcoder}"


def _draw_panel(axis: Axes, rows: pd.DataFrame, panel: Panel, protocol: str, places: dict) -> None:
    if panel.title == "absorption":
        _draw_null(axis, rows, places)
    if panel.title == "L0" and rows.k.notna().any():
        for k in rows.k.dropna().unique():
            axis.axhline(k, color="#666666", linewidth=0.7, linestyle=(0, (4, 2)))
            axis.annotate(
                f"k = {k:g}", (0.98, k), xycoords=("axes fraction", "data"), fontsize=6, va="bottom", ha="right"
            )
    if panel.published and rows[panel.published].notna().any():
        for (hook, n_latents), group in rows.groupby(["hook", "n_latents"]):
            first = group.iloc[0]
            colour = OUTCOME_COLOURS.get(first.published_outcome, "#000000")
            axis.plot(
                places[hook, n_latents] - 0.28,
                first[panel.published],
                "D",
                markersize=5,
                mfc="none",
                mec=colour,
                mew=1.1,
            )
    roles = list(dict.fromkeys(rows.role))
    for row in rows.itertuples():
        x = places[row.hook, row.n_latents] + 0.2 * (roles.index(row.role) - (len(roles) - 1) / 2) + 0.08
        colour = OUTCOME_COLOURS[getattr(row, PROTOCOL_OUTCOME[protocol])]
        for column, face in ((panel.column, colour), (panel.hollow, "white")):
            if column is not None:
                _draw_mark(axis, row, column, x, colour, face)
        if panel.hollow is not None and _TWIN in rows:
            axis.plot(x, max(_FLOOR, getattr(row, _TWIN)), "_", color="#444444", markersize=5, mew=0.9)
    if panel.limits:
        columns = [column for column in (panel.column, panel.hollow) if column is not None]
        lowest = rows[columns].min(axis=None)
        axis.set_ylim(max(_FLOOR, min(panel.limits[0], 1.1 * lowest)), panel.limits[1])
    else:
        axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    axis.grid(axis="x", visible=False)


def _draw_mark(axis: Axes, row: Any, column: str, x: float, colour: str, face: str) -> None:
    """A value with its interval; filled with a white edge, or hollow."""
    low, high = (getattr(row, f"{column}_interval_{end}", np.nan) for end in ("low", "high"))
    if pd.notna(low):
        axis.plot([x, x], [low, high], color=colour, linewidth=0.8, solid_capstyle="butt")
    edge, width = ("white", 0.3) if face == colour else (colour, 0.8)
    value, marker = getattr(row, column), ROLE_MARKERS[row.role]
    if value < _FLOOR:
        axis.annotate(
            f"{value:.0f}", (x, _FLOOR), fontsize=5, ha="center", va="bottom", xytext=(0, 4), textcoords="offset points"
        )
        value, marker = _FLOOR, "v"
    axis.plot(x, value, marker, markersize=3.6, color=face, mec=edge, mew=width, clip_on=False)


def _share_limits(axes: Sequence[Axes]) -> None:
    """One scale for the same quantity under both protocols."""
    top = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(0, top)


def _note_untested(axis: Axes, rows: pd.DataFrame) -> None:
    """Say so in the panel when silent latents were not looked at for long enough to be called dead."""
    untested = rows[rows.atlas_dead_status == "untested"]
    if len(untested):
        tokens = f"{untested.atlas_dead_tokens.min() / 1000:.0f}k"
        axis.annotate(
            f"silent on {tokens} tokens:\nuntested, not dead", (0.04, 0.8), xycoords="axes fraction", fontsize=6
        )


def _draw_null(axis: Axes, rows: pd.DataFrame, places: dict) -> None:
    """Return what random dictionaries of the same shape score: mean ± 2 standard deviations over the draws."""
    for row in rows.drop_duplicates(["hook", "n_latents"]).itertuples():
        x, mean, sd = (
            places[row.hook, row.n_latents],
            row.redundancy_absorption_guide_null_mean,
            row.redundancy_absorption_guide_null_sd,
        )
        axis.fill_between([x - 0.45, x + 0.45], mean - 2 * sd, mean + 2 * sd, color="#999999", alpha=0.5, linewidth=0)
        axis.plot([x - 0.45, x + 0.45], [mean, mean], color="#666666", linewidth=0.8)


def _said(outcome: str, rows: pd.DataFrame) -> str:
    """An outcome with what was learnt of it: one word where it holds for all of our rows, else how often each."""
    words = rows.learnt[rows.outcome == outcome].value_counts()
    if len(words) <= 1:
        return with_learnt(outcome, words.index[0] if len(words) else UNTESTED)
    return with_learnt(outcome, ", ".join(f"{word} {n}" for word, n in words.items()))


def _legend(figure: Figure, rows: pd.DataFrame) -> None:
    columns = [column for column in ("outcome", "guide_outcome", "published_outcome") if column in rows]
    present = {value for column in columns for value in rows[column].dropna()}
    colours = [
        Patch(color=colour, label=_said(name, rows)) for name, colour in OUTCOME_COLOURS.items() if name in present
    ]
    marks = [
        Line2D(
            [],
            [],
            marker=ROLE_MARKERS[role],
            color="#444444",
            linestyle="",
            markersize=4,
            label=f"{ROLE_NAMES[role]} ({corpus})",
        )
        for role, corpus in rows[["role", "corpus"]].drop_duplicates().itertuples(index=False)
    ]
    if rows.published_outcome.notna().any():
        model = rows.published_model.dropna().iloc[0].split("/")[-1]
        marks.append(
            Line2D(
                [],
                [],
                marker="D",
                mfc="none",
                color="#444444",
                linestyle="",
                markersize=5,
                label=f"published ({model})",
            )
        )
    null = Patch(color="#999999", alpha=0.6, label="random dictionaries (±2 sd)")
    figure.legend(handles=[*marks, null, *colours], loc="outside lower center", ncols=4, frameon=False)
