"""Effects of the latents of a study: one row per SAE."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from atlas.errors import EvaluationError
from atlas.files import read_json
from atlas.studies.rows import identity
from atlas.tables import write_csv


def write_effects_table(study: str, summaries: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_effects.csv from the effects.json of each SAE (SAE id → file).

    What is not defined is empty and `reasons` says why. Columns: docs/metrics.md, section 18. Raises EvaluationError
    when a file is of another SAE.
    """
    rows = []
    for sae_id, path in summaries.items():
        found = read_json(path)
        if found["sae_id"] != sae_id:
            raise EvaluationError(f"{path}: is of SAE {found['sae_id']!r}, expected {sae_id!r}; delete it, run again")
        kept = {name: value for name, value in found.items() if name not in ("sae_id", "reasons", "integrity")}
        rows.append(identity(study, sae_id) | kept | {"reasons": json.dumps(found["reasons"], sort_keys=True)})
    write_csv(table, pd.DataFrame(rows))
