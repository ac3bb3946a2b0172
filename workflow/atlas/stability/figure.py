"""Does a dictionary come back with another seed, and does it fire as often on other text? Both beside their nulls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from atlas.figures.captions import counted_tokens, listed, name_models, saes, span
from atlas.figures.series import name_series, series_colours, with_series
from atlas.figures.style import ROLE_MARKERS, ROLE_NAMES, WIDTH, draw, legend_point
from atlas.studies.rows import read_rows

_GREY, _SPECTRUM = "#999999", "#444444"


@dataclass(frozen=True)
class Panel:
    """A quantity of results/<study>_stability.csv: its title, and the columns of value, interval and nulls."""

    title: str
    column: str
    interval: str | None = None
    null: str | None = None
    spectrum: str | None = None


PANELS = (
    Panel(
        "decoder cosine to the\npartner in another seed",
        "firing_pw_mcc_value",
        "firing_pw_mcc_interval",
        "firing_pw_mcc_null_mean",
        "firing_pw_mcc_spectrum_null_mean",
    ),
    Panel(
        "share of latents\nwith a partner",
        "firing_shared_value",
        "firing_shared_interval",
        "firing_shared_null_mean",
        "firing_shared_spectrum_null_mean",
    ),
    Panel("firing with the\npartner (Jaccard)", "firing_jaccard_partners", null="firing_jaccard_random"),
)


def draw_stability(stability: Path, health: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_stability.csv and results/<study>_health.csv to every target (.pdf, .png, .txt)."""
    seeds = name_series(read_rows(stability))
    draw(plot_stability, describe_stability, targets, seeds, with_series(read_rows(health), seeds))


def describe_stability(seeds: pd.DataFrame, text: pd.DataFrame) -> str:
    """The caption."""
    lonely = seeds[seeds.firing_pw_mcc_value.isna()]
    alone = f" Without another seed: {listed(lonely.series)}." if len(lonely) else ""
    return (
        f"Study {listed(seeds.study)}: {saes(seeds)} of {listed(seeds.model)}, each held against every other seed of "
        f"its dictionary, latents that fire on {span(seeds.n_rows.dropna())} tokens of "
        f"{listed(seeds.corpus.dropna())}.{alone} Points: SAEs; bars: 95 % intervals over latents; grey: two random "
        "dictionaries of the same shape (firing: partners shuffled); black: the SAE against random dictionaries with "
        "the other seed's second moments. Drift: Jensen-Shannon divergence of firing rates from halves of the "
        f"in-sample documents to {counted_tokens(text[text.role != 'in_sample'], 'n_tokens')}; grey bands: to the "
        "other half, mean and two standard deviations; hollow: the random dictionary. Definitions: docs/metrics.md, "
        "sections 6 and 11."
    )


def plot_stability(seeds: pd.DataFrame, text: pd.DataFrame) -> Figure:
    """The figure of both tables with their `series`: a line per dictionary, its seeds close together."""
    names = list(dict.fromkeys(seeds.series))
    colours = series_colours(names)
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 1.35 + 0.32 * len(names)), sharey=True, layout="constrained")
    for axis, panel in zip(axes, PANELS, strict=False):
        _draw_seeds(axis, panel, seeds, names, colours)
    _draw_drift(axes[3], text[text.role != "in_sample"], names, colours)
    axes[0].set_yticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=6)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for axis in axes:
        axis.set_xlim(left=min(0, axis.get_xlim()[0]))
        axis.grid(axis="y", visible=False)
    figure.legend(handles=_legend(text), loc="outside lower center", ncols=3, frameon=False)
    name_models(figure, seeds)
    return figure


def _heights(rows: pd.DataFrame, names: Sequence[str], inner: Sequence[str]) -> list[float]:
    """Rows of a series close together, in the order of the columns `inner`."""
    orders = [sorted(rows[column].unique()) for column in inner]
    total = 1
    places = [0] * len(rows)
    for column, order in zip(inner, orders, strict=True):
        places = [place * len(order) + order.index(value) for place, value in zip(places, rows[column], strict=True)]
        total *= len(order)
    step = 0.7 / total
    return [
        names.index(series) + step * (place - (total - 1) / 2)
        for series, place in zip(rows.series, places, strict=True)
    ]


def _draw_seeds(axis: Axes, panel: Panel, seeds: pd.DataFrame, names: Sequence[str], colours: Mapping) -> None:
    for y, row in zip(_heights(seeds, names, ["seed"]), seeds.to_dict("records"), strict=True):
        if pd.isna(row[panel.column]):
            continue
        colour = colours[row["series"]]
        if panel.interval:
            axis.plot([row[f"{panel.interval}_{end}"] for end in ("low", "high")], [y, y], color=colour, linewidth=0.9)
        axis.plot(row[panel.column], y, "o", color=colour, markersize=3.6, mec="white", mew=0.3)
        for null, ink in ((panel.null, _GREY), (panel.spectrum, _SPECTRUM)):
            if null:
                axis.plot(row[null], y, "|", color=ink, markersize=5, mew=1.0)
    axis.set_title(panel.title)
    if seeds[panel.column].isna().all():
        axis.annotate(
            "one seed each:\nnothing to compare", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=6
        )


def _draw_drift(axis: Axes, text: pd.DataFrame, names: Sequence[str], colours: Mapping) -> None:
    name = "drift_js_divergence"
    for y, row in zip(_heights(text, names, ["role", "corpus", "seed"]), text.to_dict("records"), strict=True):
        colour, marker = colours[row["series"]], ROLE_MARKERS[row["role"]]
        mean, sd = row[f"{name}_null_mean"], row[f"{name}_null_sd"]
        axis.plot([mean - 2 * sd, mean + 2 * sd], [y, y], color=_GREY, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
        axis.plot(row[f"random_{name}_halves"], y, marker, color=colour, mfc="white", markersize=3, mew=0.6)
        axis.plot(row[f"{name}_halves"], y, marker, color=colour, markersize=3.6, mec="white", mew=0.3)
    axis.set_title("drift of firing rates\n(JS divergence, bits)")


def _legend(text: pd.DataFrame) -> list:
    return [
        legend_point(marker="o", color=_SPECTRUM, label="another seed"),
        *(
            legend_point(marker=marker, color=_SPECTRUM, label=f"drift, {ROLE_NAMES[role]}")
            for role, marker in ROLE_MARKERS.items()
            if role in set(text.role) and role != "in_sample"
        ),
        legend_point(marker="|", color=_GREY, mew=1.0, label="random dictionaries, or partners"),
        legend_point(marker="|", color=_SPECTRUM, mew=1.0, label="random, second moments of the other seed"),
        legend_point(marker="s", color=_SPECTRUM, mfc="white", label="drift of the random dictionary"),
        Patch(color=_GREY, alpha=0.6, label="halves of the in-sample text (±2 sd)"),
    ]
