"""First-letter absorption of a study: one row per SAE and dictionary, and why a row does not count."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atlas.files import read_json
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import flat
from atlas.tables import write_csv

DICTIONARIES = ("sae", "random", "raw")


def write_absorption_table(study: str, results: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_absorption.csv from the absorption.json of each SAE (SAE id → file).

    Rows are the SAE and, beside it, a random dictionary and the raw dimensions; columns: docs/metrics.md.
    """
    rows = [row for sae_id, path in results.items() for row in _rows(identity(study, sae_id), read_json(path))]
    write_csv(table, frame_of(rows))


def _rows(who: dict[str, Any], result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    reasons = json.dumps(result["reasons"], ensure_ascii=False)
    for name in DICTIONARIES:
        place = {"dictionary": name, "valid": result["valid"]}
        summary = dict(result[name] or {})
        letters = {"n_letters": min(summary.pop("n_letters", [0]))}
        columns = {name: value for measure, values in summary.items() for name, value in flat(measure, values)}
        yield who | place | letters | columns | {"reasons": reasons}
