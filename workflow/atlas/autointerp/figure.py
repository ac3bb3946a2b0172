"""Labels of a study's SAEs against redundancy and against FVU: which of the two goes with labels that repeat?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from atlas.figures.captions import listed, name_models, saes, span
from atlas.figures.style import SERIES_COLOURS, WIDTH, save, use_style
from atlas.studies.rows import read_rows

X = {"absorption_guide": "redundancy (absorption_guide)", "fvu": "FVU (in-sample, regular rows)"}
Y = {
    "labels_repeated_semantic": "share of latents whose\nlabel another latent has",
    "score": "score (AUC),\nrandom negatives",
    "specificity": "score − score of\nother latents' labels",
}
_SAMPLES, _LEVELS = 2000, (0.025, 0.975)
_MIN_SAES = 4


def draw_autointerp(table: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>_autointerp.csv to every target (.pdf, .png)."""
    use_style()
    rows = shown(read_rows(table))
    figure = plot_autointerp(rows)
    save(figure, targets, describe_autointerp(rows))
    plt.close(figure)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the figure shows of a table: its first explainer and scorer, on random negatives."""
    rows = table[(table.negatives == "random") & (table.explainer == table.explainer.iloc[0])]
    return rows[rows.scorer == rows.scorer.iloc[0]]


def describe_autointerp(rows: pd.DataFrame) -> str:
    """The caption."""
    ours = rows[rows.dictionary == "sae"]
    return (
        f"Study {listed(rows.study)}: labels of {saes(ours)} of {listed(rows.model)}, by explainer "
        f"{listed(rows.explainer)}; scores of {span(ours.n_scored)} latents of each by scorer {listed(rows.scorer)} "
        "against random negatives. Whether labels repeat, and how well they tell their latents' examples from "
        "others, against redundancy and against the fraction of variance unexplained. Filled: SAEs with 95 % "
        "intervals; hollow: the random dictionary of each, at the FVU of its SAE. Titles: Spearman's rank "
        "correlation over SAEs, 95 % interval over hooks. Definitions: docs/metrics.md, section 14."
    )


def plot_autointerp(rows: pd.DataFrame) -> Figure:
    """The rows of `shown`; one point per SAE."""
    ours, random = rows[rows.dictionary == "sae"], rows[rows.dictionary == "random"]
    places = ours[["hook", "target_hook"]].drop_duplicates().apply(tuple, axis=1).tolist()
    colours = {_hook(*place): SERIES_COLOURS[number % len(SERIES_COLOURS)] for number, place in enumerate(places)}
    figure, axes = plt.subplots(len(Y), len(X), figsize=(WIDTH, 5.6), sharey="row", sharex="col", layout="constrained")
    for line, (y, y_name) in zip(axes, Y.items(), strict=True):
        for axis, (x, x_name) in zip(line, X.items(), strict=True):
            _draw_panel(axis, ours, random, x, y, colours)
            if y == list(Y)[-1]:
                axis.set_xlabel(x_name)
        line[0].set_ylabel(y_name)
    marks = [Line2D([], [], marker="o", linestyle="", color=colour, label=hook) for hook, colour in colours.items()]
    marks.append(Line2D([], [], marker="o", linestyle="", color="#444444", mfc="none", label="random dictionary"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    name_models(figure, rows)
    return figure


def rank_correlation(x: Sequence[float], y: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    """Spearman's ρ with a 95 % percentile interval over groups drawn with replacement: the seeds of a hook go together.

    None below four SAEs, or when one side does not vary; the interval also when the drawn SAEs do not vary too often
    (more than a twentieth of the draws).
    """
    first, second, of = np.asarray(x, float), np.asarray(y, float), np.asarray(groups)
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    members = [np.flatnonzero(of[known] == group) for group in np.unique(of[known])]
    if len(first) < _MIN_SAES or np.ptp(first) == 0 or np.ptp(second) == 0:
        return {"value": None, "interval": None, "n": len(first)}
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = []
    for _ in range(_SAMPLES):
        chosen = np.concatenate([members[group] for group in generator.integers(0, len(members), len(members))])
        if np.ptp(first[chosen]) > 0 and np.ptp(second[chosen]) > 0:
            drawn.append(spearmanr(first[chosen], second[chosen]).statistic)
    enough = len(drawn) >= 0.95 * _SAMPLES
    interval = [float(value) for value in np.quantile(drawn, _LEVELS)] if enough else None
    return {"value": float(spearmanr(first, second).statistic), "interval": interval, "n": len(first)}


def _draw_panel(axis: Axes, ours: pd.DataFrame, random: pd.DataFrame, x: str, y: str, colours: dict[str, str]) -> None:
    for row in ours.itertuples():
        colour = colours[_hook(row.hook, row.target_hook)]
        low, high = getattr(row, f"{y}_interval_low", np.nan), getattr(row, f"{y}_interval_high", np.nan)
        if pd.notna(low):
            axis.plot([getattr(row, x)] * 2, [low, high], color=colour, linewidth=0.8)
        axis.plot(getattr(row, x), getattr(row, y), "o", color=colour, markersize=4)
    # A random dictionary has no FVU of its own: it stands at that of its SAE, so that the two can be compared.
    fvu = ours.set_index(["model", "hook", "mix", "recipe", "seed"]).fvu
    for row in random.itertuples():
        place = getattr(row, x) if x != "fvu" else fvu.loc[row.model, row.hook, row.mix, row.recipe, row.seed]
        colour = colours[_hook(row.hook, row.target_hook)]
        axis.plot(place, getattr(row, y), "o", color=colour, mfc="none", markersize=4)
    if y == "score":
        axis.axhline(0.5, color="#666666", linewidth=0.7, linestyle=(0, (4, 2)))
    if y == "specificity":
        axis.axhline(0.0, color="#666666", linewidth=0.7, linestyle=(0, (4, 2)))
    axis.set_title(_correlation_text(rank_correlation(ours[x], ours[y], ours.hook)), fontsize=7)


def _correlation_text(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return f"no rank correlation: {found['n']} SAEs, or no spread"
    interval = "no interval" if found["interval"] is None else "[{:.2f}, {:.2f}]".format(*found["interval"])
    return f"Spearman ρ = {found['value']:.2f} {interval}, {found['n']} SAEs"


def _hook(hook: str, target: Any) -> str:
    return hook if pd.isna(target) else f"{hook} to {target}"
