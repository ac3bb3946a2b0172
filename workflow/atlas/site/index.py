"""The first page: every study with its SAEs, each with its outcome, why, and its health beside its nulls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas.errors import EvaluationError
from atlas.files import atomic_path, read_json
from atlas.sae_ids import SaeId
from atlas.site.charts import shares, strip
from atlas.site.pages import copy_assets, write_page
from atlas.site.run import LINE_FILE

# Dials that have a column on the first page.
COLUMNS = ("explained", "recovered", "l0", "dead", "dense", "redundancy", "coherent", "stable", "labels")


def build_index(studies: Mapping[str, Sequence[str]], target: Path) -> None:
    """Write the first page and what all pages share; `studies` maps names to ids of SAEs, whose folders are beside it.

    Raises EvaluationError for a folder of another SAE.
    """
    root = target.parent
    shown = [_study(name, [_line(root, sae_id) for sae_id in saes]) for name, saes in studies.items()]
    copy_assets(root / "assets")
    with atomic_path(target) as temporary:
        write_page(temporary, "index.html", "", studies=shown, legend=_legend(shown))


def _line(root: Path, sae_id: str) -> dict[str, Any]:
    path = root / "saes" / sae_id / LINE_FILE
    line = read_json(path)
    if line["sae_id"] != sae_id:
        raise EvaluationError(f"{path}: is of {line['sae_id']!r}, expected {sae_id!r}; delete its folder and run again")
    return line


def _study(name: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = {dial["key"]: dial["name"] for line in lines for dial in line["dials"]}
    columns = [(key, known[key]) for key in COLUMNS if key in known]
    return {
        "name": name,
        "columns": columns,
        "models": list(dict.fromkeys(SaeId.parse(line["sae_id"]).model for line in lines)),
        "saes": [_sae(line, columns) for line in lines],
        "n_latents": sum(sum(line["latents"].values()) for line in lines),
    }


def _sae(line: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    by_key = {dial["key"]: dial for dial in line["dials"]}
    own = SaeId.parse(line["sae_id"])
    cells = []
    for key, _ in columns:
        dial = by_key.get(key)
        drawn = None
        if dial is not None:
            drawn = strip(dial["value"], dial["interval"], dial["null"], dial["limit"], dial["domain"], width=76)
        cells.append({"dial": dial, "drawn": drawn})
    return {**line} | {
        "href": f"saes/{line['sae_id']}/index.html",
        "title": own.title,
        "model": own.model,
        "hook": str(own.hooks),
        "rest": own.how_made,
        "cells": cells,
        "bar": shares(line["latents"], width=110),
    }


def _legend(studies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Outcomes of latents that occur, in the order of the bars."""
    return list(dict.fromkeys(name for study in studies for sae in study["saes"] for name in sae["latents"]))
