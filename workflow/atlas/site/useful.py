"""Usefulness of an SAE on its page: its row of a study's table, each measure between floor and ceiling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.sae_ids import SaeId
from atlas.site.numbers import known, short
from atlas.tables import read_csv
from atlas.usefulness.scale import MEASURES

_TITLES = {
    "loss": "loss recovered, mean",
    "coherence": "share of coherent latents",
    "stability": "share found by another seed",
    "labels": "share told by token, word or topic",
    "learnt": "explained variance over the best twin",
}


def row_of(table: Path, sae_id: str) -> dict[str, Any] | None:
    """Return the row of an SAE in results/<study>_usefulness.csv; None where the study has it under a shift alone."""
    wanted = SaeId.parse(sae_id).columns
    for row in read_csv(table).to_dict("records"):
        if all(row[name] == value if value is not None else not known(row[name]) for name, value in wanted.items()):
            return row
    return None


def word_of(row: Mapping[str, Any] | None) -> str | None:
    """Return the word for all measures, with the tested ones that a yes rests on; None without a row."""
    if row is None:
        return None
    missing = f" ({row['untested']} untested)" if row["useful"] == "yes" and known(row["untested"]) else ""
    return f"{row['useful']}{missing}"


def scales_of(row: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Each measure as a line of a table; none without a row."""
    return [] if row is None else [_line(row, name) for name in MEASURES]


def _line(row: Mapping[str, Any], name: str) -> dict[str, str]:
    shown = {end: short(row[f"{name}_{end}"]) for end in ("floor", "threshold", "ceiling")}
    ends = [row[f"{name}_interval_{end}"] for end in ("low", "high")]
    interval = f" [{', '.join(map(short, ends))}]" if all(map(known, ends)) else ""
    return {
        "name": _TITLES[name],
        "word": row[f"{name}_word"],
        "value": short(row[f"{name}_value"]) + interval,
        **shown,
    }
