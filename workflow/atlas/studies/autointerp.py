"""Auto-interpretation of a study: one row per SAE, dictionary, explainer, scorer and kind of negatives."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.errors import EvaluationError
from atlas.files import atomic_path, read_json
from atlas.studies.rows import identity
from atlas.studies.table import flat

# What the labels are held against: the guide's redundancy, and how badly rows are reconstructed.
_REDUNDANCY = ("absorption_guide", "mean_max_cosine")


@dataclass(frozen=True)
class SaeFiles:
    """autointerp.json, latents.parquet with outcomes, metrics.json of one SAE; `corpus` is one it was trained on."""

    summary: Path
    latents: Path
    metrics: Path
    corpus: str


def write_autointerp_table(study: str, saes: Mapping[str, SaeFiles], table: Path) -> None:
    """Write results/<study>_autointerp.csv (SAE id → files); FVU is that on text like its training's.

    Rows of the random dictionary are controls: their redundancy is that of the null, and they have no FVU and no
    outcomes. Columns: docs/metrics.md, section 14. Raises EvaluationError when a file is of another SAE.
    """
    rows = [row for sae_id, files in saes.items() for row in _rows(study, sae_id, files)]
    with atomic_path(table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")


def _rows(study: str, sae_id: str, files: SaeFiles) -> Iterator[dict[str, Any]]:
    summary, metrics = read_json(files.summary), read_json(files.metrics)
    for path, found in ((files.summary, summary), (files.metrics, metrics)):
        if found["sae_id"] != sae_id:
            raise EvaluationError(f"{path}: is of SAE {found['sae_id']!r}, expected {sae_id!r}; delete it, run again")
    shares = pd.read_parquet(files.latents, columns=["outcome"]).outcome.value_counts(normalize=True)
    for own in summary["rows"]:
        ours = own["dictionary"] == "sae"
        key = "value" if ours else "null_mean"
        columns: dict[str, Any] = {}
        for name, value in own.items():
            if isinstance(value, dict) and "value" in value:
                columns |= {each.removesuffix("_value"): number for each, number in flat(name, value)}
            elif not isinstance(value, dict | list):
                columns[name] = value
        yield {
            **identity(study, sae_id),
            **columns,
            "beats": ", ".join(own["beats"]),
            "does_not_beat": ", ".join(own["does_not_beat"]),
            "unscored": json.dumps(own["unscored"], sort_keys=True),
            **{name: metrics["redundancy"][name][key] for name in _REDUNDANCY},
            "fvu": metrics["corpora"][files.corpus]["atlas"]["fvu_regular"] if ours else None,
            "outcome_shares": json.dumps(shares.round(4).to_dict(), sort_keys=True) if ours else None,
        }
