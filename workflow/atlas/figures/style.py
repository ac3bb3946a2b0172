"""One look for all figures: readable in a two-column paper, distinguishable without colour vision."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.files import atomic_path

WIDTH = 7.0  # inches: both columns of a two-column page

# Okabe and Ito's colours: distinguishable with any common colour vision.
OUTCOME_COLOURS = {
    "good": "#009E73",
    "under-capacity": "#56B4E9",
    "deceptively-good": "#E69F00",
    "unhealthy": "#D55E00",
    "duplicated": "#CC79A7",
    "noisy": "#F0E442",
    "dead": "#7F7F7F",
    "failed": "#000000",
    "unknown": "#BBBBBB",
}
# The same colours for series that stand for no outcome; yellow is left out, it vanishes as a thin line.
SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ROLE_MARKERS = {"in_sample": "o", "proxy": "s", "oos": "^"}
ROLE_NAMES = {"in_sample": "in-sample", "proxy": "proxy", "oos": "out-of-sample"}


def use_style() -> None:
    """Set fonts, lines and grids; text stays text in vector files."""
    sns.set_theme(context="paper", style="ticks", font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "font.size": 7,
            "axes.labelsize": 7,
            "axes.titlesize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 6.5,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "axes.grid": True,
            "grid.linewidth": 0.4,
            "grid.color": "#DDDDDD",
            "pdf.fonttype": 42,
            "svg.hashsalt": "sae-atlas",
        }
    )


def legend_point(**style: Any) -> Line2D:
    """Return a handle for a legend that shows a marker only."""
    return Line2D([], [], linestyle="", markersize=4, **style)


def save(figure: Figure, targets: Sequence[Path], caption: str) -> None:
    """Write each target in the format of its suffix, `caption` to one that ends in .txt.

    The bytes depend on figure and caption alone (no dates).
    """
    for target in targets:
        if target.suffix == ".txt":
            with atomic_path(target) as temporary:
                temporary.write_text(f"{as_restructured_text(caption)}\n", encoding="utf-8")
            continue
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else {"Software": None}
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, metadata=metadata, bbox_inches="tight")


def draw(plot: Callable[..., Figure], describe: Callable[..., str], targets: Sequence[Path], *tables: Any) -> None:
    """Draw one figure of `tables` to every target, with its caption; both functions take the tables."""
    use_style()
    figure = plot(*tables)
    save(figure, targets, describe(*tables))
    plt.close(figure)


def as_restructured_text(caption: str) -> str:
    """The caption with characters escaped that the report's captions, reStructuredText, would read as markup."""
    return re.sub(r"[\\*`|]|_(?!\w)", r"\\\g<0>", caption)
