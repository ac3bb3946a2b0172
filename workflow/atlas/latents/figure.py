"""Is a dictionary well? Silent latents against tokens, massive activations, firing densities, neighbours."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from jaxtyping import Integer as Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import gammaln

from atlas.figures.captions import counted_tokens, listed, name_models, saes, span
from atlas.figures.series import name_series, sae_ids, series_colours, with_series
from atlas.figures.style import ROLE_MARKERS, ROLE_NAMES, WIDTH, draw, legend_point
from atlas.studies.rows import filled, read_rows
from atlas.tables import read_parquet

_SAE = ["model", "hook", "target_hook", "mix", "recipe", "seed"]
_COLUMNS = [*_SAE, "dictionary", "corpus", "role", "n_tokens", "n_firings", "density", "max_cosine"]
_BINS = np.linspace(-9, 0, 55)  # of log10 of the density
_DENSE = 0.1
_GREY = "#777777"
_DASHES, _DOTS = (0, (3, 1.5)), (0, (1, 1))
_FLOOR = -0.5
_EXPLAINED = [
    "random_explained_variance_regular",
    *(f"atlas_explained_variance{end}" for end in ("", "_regular", "_regular_interval_low", "_regular_interval_high")),
]
_TWIN = "best_twin_value_explained_variance_regular"  # in a study with twins
_LABELLED = 5


_TWIN_SAID = ", darker: of the best twin, a trained null (docs/twins.md)"


def draw_health(table: Path, latents: Path, targets: Sequence[Path]) -> None:
    """Draw results/<study>.csv and results/<study>_latents.parquet to every target (.pdf, .png, .txt)."""
    rows = at_home(read_rows(table))
    found = named_latents(filled(read_parquet(latents, columns=_COLUMNS)), rows)
    draw(plot_health, describe_health, targets, rows, found)


def at_home(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of SAEs judged where they were trained, as series: elsewhere their latents were not looked at."""
    return name_series(table[table["shift"].isna()])


def named_latents(latents: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Latents of the SAEs in `rows`, and of their random dictionaries, on the first in-sample corpus of each SAE."""
    in_sample = rows[rows.role == "in_sample"]
    first = pd.DataFrame({"sae": sae_ids(in_sample), "corpus": in_sample.corpus.to_numpy()}).drop_duplicates("sae")
    return with_series(latents, rows).merge(first, on=["sae", "corpus"])


def describe_health(rows: pd.DataFrame, latents: pd.DataFrame) -> str:
    """The caption."""
    tokens, corpora = span(latents.n_tokens), listed(latents.corpus)
    return (
        f"Study {listed(rows.study)}: health of {saes(rows)} of {listed(rows.model)}; seeds of a dictionary are "
        f"pooled. Silent latents: expected on so many tokens drawn at random from the {tokens} of {corpora}, and, "
        "dotted, less those that are expected to be alive, judged from the latents that fired once and twice on them "
        "(a lower bound, Chao 1984): where the estimate is good, the dotted line is flat. Explained variance on "
        f"{counted_tokens(rows)}, of all tokens (hollow) and without massive activations (filled, 95 % interval over "
        f"documents), grey: of the random dictionary without them{_TWIN_SAID if _TWIN in rows else ''}. "
        "Firing densities and largest cosines to another "
        f"latent: on {corpora}, dashed: random dictionaries of the same shape; straight: the limits of dense latents "
        "and of close copies. Definitions: docs/metrics.md, sections 2 to 6."
    )


def plot_health(rows: pd.DataFrame, latents: pd.DataFrame) -> Figure:
    """The figure of the rows of `at_home` and the latents of `named_latents`."""
    colours = series_colours(list(dict.fromkeys(rows.series)))
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.0), layout="constrained")
    ours, random = (latents[latents.dictionary == name] for name in ("sae", "random"))
    _deadness(axes[0, 0], ours, colours)
    _explained_variance(axes[0, 1], rows, colours)
    _densities(axes[1, 0], ours, random, colours)
    _neighbours(axes[1, 1], ours, random, colours)
    figure.legend(handles=_legend(rows, colours), loc="outside lower center", ncols=4, frameon=False)
    name_models(figure, rows)
    return figure


def silent_on(firings: Int[np.ndarray, " n_latents"], n_tokens: int, sample: int) -> tuple[float, float]:
    """Latents expected to be silent on `sample` tokens drawn at random from `n_tokens`, and Chao's estimate there.

    `firings` are the counts of the latents on all `n_tokens`. The estimate is that of `expected_false_dead` in
    docs/metrics.md, section 3, of the expected numbers of latents that are silent, fire once and fire twice.
    """
    counts, latents = np.unique(firings, return_counts=True)
    silent, once, twice = (float(latents @ _chance(hits, counts, n_tokens, sample)) for hits in (0, 1, 2))
    return silent, min(silent, max(0.0, once * (once - 1)) / (2 * (twice + 1)))


def _chance(hits: int, counts: Int[np.ndarray, " counts"], n_tokens: int, sample: int) -> Float[np.ndarray, " counts"]:
    """Chance of exactly `hits` firings on the sample (hypergeometric) of latents that fire `counts` times in all."""
    others = n_tokens - counts
    possible = (counts >= hits) & (others >= sample - hits) & (sample >= hits)
    logs = _log_ways(counts, hits) + _log_ways(others, sample - hits) - _log_ways(np.array([n_tokens]), sample)
    return np.where(possible, np.exp(np.minimum(logs, 0)), 0.0)


def _log_ways(total: Int[np.ndarray, " counts"], chosen: int) -> Float[np.ndarray, " counts"]:
    """Logarithm of the number of ways to choose; of no use where more are chosen than there are."""
    return gammaln(total + 1) - gammaln(max(chosen, 0) + 1) - gammaln(np.maximum(total - chosen, 0) + 1)


def _deadness(axis: Axes, ours: pd.DataFrame, colours: Mapping) -> None:
    for series, mine in ours.groupby("series", sort=False):
        n_tokens = int(mine.n_tokens.min())
        samples = np.unique(np.geomspace(min(100, n_tokens), n_tokens, 30).astype(int))
        groups = [(group.n_firings.to_numpy(), int(group.n_tokens.iloc[0])) for _, group in mine.groupby("seed")]
        found: Float[np.ndarray, "seeds samples 2"] = np.array(
            [[silent_on(firings, total, sample) for sample in samples] for firings, total in groups]
        )
        shares = 100 * found.sum(0) / len(mine)
        axis.plot(samples, shares[:, 0], color=colours[series], linewidth=1.1)
        axis.plot(samples, shares[:, 0] - shares[:, 1], color=colours[series], linewidth=1.1, linestyle=_DOTS)
    axis.set(xscale="log", xlabel="tokens", ylabel="latents (%)", title="silent so far, and expected to be dead")
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])


def _explained_variance(axis: Axes, rows: pd.DataFrame, colours: Mapping) -> None:
    names, roles, seeds = list(colours), list(dict.fromkeys(rows.role)), sorted(rows.seed.unique())
    step = 0.8 / (len(roles) * len(seeds))
    value, clipped = "atlas_explained_variance", bool((rows[_EXPLAINED] < _FLOOR).any(axis=None))
    for row in rows.to_dict("records"):
        place = roles.index(row["role"]) * len(seeds) + seeds.index(row["seed"])
        x = names.index(row["series"]) + step * (place - (len(roles) * len(seeds) - 1) / 2)
        colour, marker = colours[row["series"]], ROLE_MARKERS[row["role"]]
        row |= {name: max(row[name], _FLOOR) for name in _EXPLAINED if pd.notna(row[name])}
        ends = [row[f"{value}_regular_interval_{end}"] for end in ("low", "high")]
        axis.plot([x, x], ends, color=colour, linewidth=0.8, solid_capstyle="butt")
        axis.plot(x, row[value], marker, color=colour, mfc="white", markersize=3.2, mew=0.7)
        axis.plot(x, row[f"{value}_regular"], marker, color=colour, markersize=3.2, mec="white", mew=0.2)
        axis.plot(x, row["random_explained_variance_regular"], "_", color=_GREY, markersize=3.5, mew=0.9)
        if pd.notna(row.get(_TWIN)):
            axis.plot(x, max(row[_TWIN], _FLOOR), "_", color="#444444", markersize=3.5, mew=0.9)
    labelled = len(names) <= _LABELLED
    axis.set_xticks(range(len(names)), [name.replace(", ", "\n") if labelled else "" for name in names], fontsize=6)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylim(top=1)
    axis.grid(axis="x", visible=False)
    axis.set_title("explained variance" + " (at −.5: there or below)" * clipped)


def _densities(axis: Axes, ours: pd.DataFrame, random: pd.DataFrame, colours: Mapping) -> None:
    for latents, style in ((ours, "-"), (random, _DASHES)):
        for series, mine in latents.groupby("series", sort=False):
            rates = np.log10(mine.density[mine.n_firings > 0])
            shares = 100 * np.histogram(rates, _BINS)[0] / len(mine)
            axis.stairs(
                shares, 10**_BINS, color=colours[series], linewidth=1.1 if style == "-" else 0.8, linestyle=style
            )
    axis.axvline(_DENSE, color="#444444", linewidth=0.7, linestyle=":")
    lowest = ours.density[ours.n_firings > 0].min()
    axis.set(xscale="log", xlabel="share of tokens on which a latent fires", ylabel="latents (%)")
    axis.set(title="firing densities", xlim=(lowest / 2, 1.0))


def _neighbours(axis: Axes, ours: pd.DataFrame, random: pd.DataFrame, colours: Mapping) -> None:
    for latents, style in ((ours, "-"), (random, _DASHES)):
        for series, mine in latents.groupby("series", sort=False):
            cosines = np.sort(mine.max_cosine)[::-1]
            ranks = 100 * (np.arange(len(cosines)) + 1) / len(cosines)
            axis.plot(ranks, cosines, color=colours[series], linewidth=1.1 if style == "-" else 0.8, linestyle=style)
    axis.axhline(0.9, color="#444444", linewidth=0.7, linestyle=":")
    axis.set(xscale="log", xlabel="latents at least so close to another (%)", ylabel="largest decoder cosine")
    axis.set(title="redundancy", ylim=(0, 1.03))


def _legend(rows: pd.DataFrame, colours: Mapping) -> list[Line2D]:
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    handles += [
        legend_point(marker=marker, color="#444444", label=ROLE_NAMES[role])
        for role, marker in ROLE_MARKERS.items()
        if role in set(rows.role)
    ]
    return [
        *handles,
        legend_point(marker="o", color="#444444", mfc="white", label="with massive activations"),
        Line2D([], [], color="#444444", linewidth=0.8, linestyle=_DASHES, label="random dictionary"),
        Line2D([], [], color="#444444", linewidth=1.1, linestyle=_DOTS, label="silent, less expected false dead"),
    ]
