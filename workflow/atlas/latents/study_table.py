"""The latents of a study: all rows in one table, and one row per SAE and corpus in another."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atlas.errors import EvaluationError
from atlas.files import atomic_path, read_json
from atlas.studies.rows import frame_of, identity
from atlas.studies.table import flat
from atlas.tables import parquet_writer, read_arrow, write_csv

_REMEDY = "delete this file and run again"


def write_tables(
    study: str,
    tables: Mapping[str, Path],
    summaries: Mapping[str, Path],
    planted: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    latents: Path,
    health: Path,
) -> None:
    """Write the latents of all SAEs of a study, and what they say together."""
    write_latents_table(study, tables, corpora, latents)
    write_health_table(study, summaries, planted, corpora, health)


def write_latents_table(
    study: str, tables: Mapping[str, Path], corpora: Mapping[str, Sequence[str]], target: Path
) -> None:
    """Append the tables of latents of all SAEs (SAE id → latents.parquet), one at a time, each row with its SAE.

    Of each SAE its `corpora`: it may stand in another study too, which has others.

    Raises EvaluationError when a table is of another SAE than its place says, or has other columns than the first.
    """
    schema = None
    with atomic_path(target) as temporary, ExitStack() as opened:
        writer = None
        for sae_id, path in tables.items():
            table = read_arrow(path)
            require_sae(path, (table.schema.metadata or {}).get(b"sae_id", b"").decode(), sae_id)
            table = table.filter(pc.is_in(table["corpus"], pa.array(corpora[sae_id]))).replace_schema_metadata(None)
            table = _with_names(table, study, sae_id)
            schema = schema or table.schema
            if table.schema != schema:
                raise EvaluationError(f"{path}: columns are {table.schema.names}, expected {schema.names}; {_REMEDY}")
            writer = writer or opened.enter_context(parquet_writer(temporary, schema))
            writer.write_table(table)


def write_health_table(
    study: str,
    summaries: Mapping[str, Path],
    planted: Mapping[str, Path],
    corpora: Mapping[str, Sequence[str]],
    target: Path,
) -> None:
    """One row per SAE and corpus from the summaries (SAE id → latents.json), in their order, on its `corpora`.

    `planted` has the planted.json of each SAE: the coherence of planted latents.

    Columns: what the SAE's latents say together, the same of the random dictionary with ``random_`` before the name,
    coherence of planted latents as ``planted_<class>_…``, and changes of evaluation metrics as ``change_<metric>``. A
    value that is not defined is empty.
    """
    rows: list[dict[str, Any]] = []
    for sae_id, path in summaries.items():
        summary, ends = read_json(path), read_json(planted[sae_id])
        for file, found in ((path, summary), (planted[sae_id], ends)):
            require_sae(file, found["sae_id"], sae_id)
        rows += [_health_row(study, sae_id, corpus, summary, ends) for corpus in corpora[sae_id]]
    write_csv(target, frame_of(rows))


def _health_row(
    study: str, sae_id: str, corpus: str, summary: Mapping[str, Any], planted: Mapping[str, Any]
) -> dict[str, Any]:
    found = summary["corpora"][corpus]
    changes = {
        name: {"value": change["change"], "interval": change["interval"]}
        for name, change in found.get("metric_changes", {}).items()
    }
    return {
        **identity(study, sae_id),
        "corpus": corpus,
        **{key: found[key] for key in ("role", "n_tokens", "n_documents")},
        **{name.removeprefix("sae_"): value for name, value in flat("sae", found["sae"])},
        **dict(flat("random", found["random"])),
        **dict(flat("planted", planted["corpora"][corpus])),
        **dict(flat("base_rate", found["base_rates"])),
        **dict(flat("change", changes)),
        "reasons": json.dumps(summary["reasons"] | planted["reasons"], ensure_ascii=False, sort_keys=True),
    }


def _with_names(table: pa.Table, study: str, sae_id: str) -> pa.Table:
    for place, (name, value) in enumerate(identity(study, sae_id).items()):
        kind = pa.int64() if name == "seed" else pa.string()
        table = table.add_column(place, name, pa.array([value] * len(table), kind))
    return table


def require_sae(path: Path, found: str, expected: str) -> None:
    """Raises EvaluationError if the file `path` says that it is of another SAE."""
    if found != expected:
        raise EvaluationError(f"{path}: is of SAE {found!r}, expected {expected!r}; {_REMEDY}")
