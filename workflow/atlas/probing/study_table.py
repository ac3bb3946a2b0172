"""Sparse probes of a study: one row per SAE, data set and number of latents."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import flat
from atlas.tables import write_csv

# The data set's name of rows that are means over all data sets.
ALL = "(all)"


def write_probing_table(study: str, results: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_probing.csv from the probing.json of each SAE (SAE id → file).

    Rows of data set `(all)` are means over data sets, with intervals over data sets; columns: docs/metrics.md.
    """
    rows = [row for sae_id, path in results.items() for row in _rows(identity(study, sae_id), read_json(path))]
    write_csv(table, frame_of(rows))


def _rows(who: dict[str, Any], result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, data in result["datasets"].items():
        spread = _columns(data["fragmentation"])
        for k, numbers in data["k"].items():
            place = {"dataset": name, "n_prompts": data["n_prompts"], "k": int(k)}
            yield who | place | _columns(numbers) | _columns({"dense": data["dense"]}) | spread
    means = result[ALL]
    for k, numbers in means["k"].items():
        named = {key: each if key.startswith("minus") else _renamed(each) for key, each in numbers.items()}
        place = {"dataset": ALL, "n_prompts": None, "k": int(k)}
        yield who | place | _columns(named) | _columns({"dense": _renamed(means["dense"])})


def _renamed(mean: Mapping[str, Any]) -> dict[str, Any]:
    return {"auc": mean["value"], "interval": mean["interval"]}


def _columns(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for group, values in groups.items() for name, value in flat(group, values)}
