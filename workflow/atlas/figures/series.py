"""Dictionaries as series: an SAE without its seed, named by what tells it from the others."""

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd

from atlas.errors import EvaluationError
from atlas.figures.style import SERIES_COLOURS

_PARTS = ["model", "hook", "mix", "recipe"]


def name_series(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `series`: ``resid_post.4, F = 1,200``; `rows` name SAEs and have `n_latents`."""
    parts = rows[_PARTS].assign(hook=_hooks(rows))
    telling = [part for part in _PARTS if parts[part].nunique() > 1] or ["hook"]
    names = [" ".join(own) for own in parts[telling].itertuples(index=False)]
    sizes = rows.groupby(names).n_latents.transform("nunique")
    if (sizes > 1).any():
        raise EvaluationError(
            f"{names[int(sizes.argmax())]} has seeds of several sizes, expected one; give each size a recipe of its own"
        )
    series = [f"{name}, F = {size:,}" for name, size in zip(names, rows.n_latents, strict=True)]
    return pd.concat([rows, pd.Series(series, rows.index, name="series", dtype=object)], axis=1)


def sae_ids(rows: pd.DataFrame) -> list[str]:
    """One text per row that names its SAE, the same in every table of a study."""
    parts = rows[_PARTS].assign(hook=_hooks(rows))
    return ["/".join(own) + f"/seed-{seed}" for own, seed in zip(parts.to_numpy(), rows.seed, strict=True)]


def _hooks(rows: pd.DataFrame) -> list[str]:
    targets = rows.target_hook if "target_hook" in rows else [None] * len(rows)
    return [hook if pd.isna(to) else f"{hook} to {to}" for hook, to in zip(rows.hook, targets, strict=True)]


def with_series(rows: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """Rows of another table with the `series` that `name_series` gave their SAEs; rows of other SAEs are left out."""
    series = pd.DataFrame({"sae": sae_ids(named), "series": named.series.to_numpy()}).drop_duplicates("sae")
    ids = pd.Series(sae_ids(rows), rows.index, name="sae")
    return pd.concat([rows, ids], axis=1).merge(series, on="sae")


def series_colours(names: Sequence[str]) -> dict[str, tuple[float, ...] | str]:
    """A colour for each name: distinguishable ones as long as there are any, then shades in order."""
    if len(names) <= len(SERIES_COLOURS):
        return dict(zip(names, SERIES_COLOURS, strict=False))
    return {name: mpl.colormaps["viridis"](place / (len(names) - 1) * 0.95) for place, name in enumerate(names)}
