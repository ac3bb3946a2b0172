"""Effects of the latents of a study: one row per SAE."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from atlas.studies.rows import results_of
from atlas.tables import write_csv


def write_effects_table(study: str, summaries: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_effects.csv from the effects.json of each SAE (SAE id → file).

    What is not defined is empty and `reasons` says why. Columns: docs/metrics.md, section 18. Raises EvaluationError
    when a file is of another SAE.
    """
    rows = []
    for who, found in results_of(study, summaries):
        kept = {name: value for name, value in found.items() if name not in ("sae_id", "reasons", "integrity")}
        rows.append(who | kept | {"reasons": json.dumps(found["reasons"], sort_keys=True)})
    write_csv(table, pd.DataFrame(rows))
