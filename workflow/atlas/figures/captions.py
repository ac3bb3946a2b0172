"""Describe the data behind captions and figures: models, SAEs, seeds, how many tokens of which corpus."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from atlas.figures.style import ROLE_NAMES
from atlas.sae_ids import PUBLISHED

_SAE = ("model", "hook", "target_hook", "mix", "recipe", "seed")


def listed(values: Iterable[Any]) -> str:
    """``a, b and c``, each value once, in the order in which they come."""
    *first, last = dict.fromkeys(map(str, values)) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def saes(rows: pd.DataFrame) -> str:
    """``8 SAEs (seeds 0 and 1)`` of a table with columns that name an SAE."""
    number = len(rows[[name for name in _SAE if name in rows]].drop_duplicates())
    mixes = rows["mix"] if "mix" in rows else pd.Series("", rows.index)
    published = rows[mixes == PUBLISHED]
    seeds = sorted(rows[mixes != PUBLISHED].seed.astype(int).unique())
    said = [f"seed{'s' * (len(seeds) != 1)} {listed(seeds)}"] if seeds else []
    said += [f"published: {listed(published.recipe)}"] if len(published) else []
    return f"{number} SAE{'s' * (number != 1)} ({'; '.join(said)})"


def name_models(figure: Figure, rows: pd.DataFrame) -> None:
    """Write above a figure which models it is of: it travels without its caption, and studies have other names."""
    figure.suptitle(listed(rows.model), x=0.008, ha="left", fontsize=7, color="#555555")


def counted_tokens(rows: pd.DataFrame, column: str = "n_counted") -> str:
    """``chat (in-sample, 16,366 tokens) and news (out-of-sample, 16,361 to 16,366 tokens)``: corpora in their roles."""
    parts = []
    for corpus, mine in rows.groupby("corpus", sort=False):
        roles = listed(ROLE_NAMES[role] for role in mine.role)
        parts.append(f"{corpus} ({roles}, {span(mine[column])} tokens)")
    return listed(parts)


def span(numbers: Iterable[float]) -> str:
    """``16,366``, or ``16,361 to 16,366`` when they differ."""
    ends = sorted({int(number) for number in numbers}) or [0]
    return f"{ends[0]:,}" if len(ends) == 1 else f"{ends[0]:,} to {ends[-1]:,}"
