"""Columns that all tables of a study share: which SAE a row is about."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.sae_files import read_of_sae
from atlas.sae_ids import NOT_STATED, PUBLISHED, SaeId
from atlas.tables import read_csv

# Why the columns are empty that only training knows.
UNKNOWN_TRAINING = {
    "mix": f"a published SAE: its training text is {NOT_STATED}; roles of corpora are what the user states",
    "seed": f"a published SAE: its seed is {NOT_STATED}; the random dictionary beside it has seed 0",
}


def identity(study: str, sae_id: str) -> dict[str, Any]:
    """Columns that say which SAE a row is about."""
    return {"study": study, **SaeId.parse(sae_id).columns}


def results_of(study: str, files: Mapping[str, Path]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Read the result of each SAE (SAE id → file), each with the columns that say which SAE it is of.

    Raises EvaluationError when a file is of another SAE.
    """
    for sae_id, path in files.items():
        yield identity(study, sae_id), read_of_sae(path, sae_id)


def unknown_of(sae_id: str) -> dict[str, str]:
    """Return the reasons for columns that only its trainer could fill; none for an SAE that is trained here."""
    return UNKNOWN_TRAINING if SaeId.parse(sae_id).is_published else {}


def frame_of(rows: Iterable[Mapping[str, Any]], **options: Any) -> pd.DataFrame:
    """Rows as a frame whose seeds stay whole numbers where published SAEs have none."""
    frame = pd.DataFrame(list(rows), **options)
    return frame.astype({"seed": "Int64"}) if "seed" in frame else frame


def read_rows(table: Path | str, **options: Any) -> pd.DataFrame:
    """Read a table for a figure; raises DamagedFileError when it has changed since it was written."""
    return filled(read_csv(table, **options))


def filled(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows for a figure, which groups by mix and seed: published SAEs are of the mix `published` there, with seed 0."""
    values = {"mix": PUBLISHED, "seed": 0}
    frame = frame.astype({name: object for name in values if name in frame})  # all empty, it would be of numbers
    frame = frame.fillna({name: value for name, value in values.items() if name in frame})
    return frame.astype({"seed": int}) if "seed" in frame else frame
