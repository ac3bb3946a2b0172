"""Documents in order of their ids, each once, in bounded memory: a corpus can be larger than the machine's memory.

The order is the order of hashes, so any first part of a split is a uniform sample of it.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from atlas.corpora.templates import Document
from atlas.files import sha256_strings

SCHEMA = pa.schema([("document_id", pa.string()), ("split", pa.string()), ("text", pa.large_string())])
_SPILLED = pa.schema([("document_id", pa.string()), ("group", pa.string()), ("text", pa.large_string())])
# Characters held before they are put aside; Python needs one to four bytes for each.
_HELD_CHARACTERS = 200_000_000
# Rows of one group of the Parquet file, and characters after which a group ends with fewer: a reader holds it whole.
_GROUP_ROWS, _GROUP_CHARACTERS = 1024, 2**26


def split_of(group: str, eval_fraction: float) -> str:
    """``eval`` for a share `eval_fraction` of all groups, else ``train``; the same for a group wherever it occurs.

    A document that is part of nothing is a group of its own, named by its id. The name is hashed again, so that the
    split does not depend on the order of ids.
    """
    return "eval" if int(sha256_strings(["split", group])[:8], 16) / 2**32 < eval_fraction else "train"


class OrderedDocuments:
    """Collects documents; `write` puts them out in order of id. `scratch` is a folder for what exceeds the memory."""

    def __init__(self, scratch: Path, held_characters: int = _HELD_CHARACTERS):
        self._scratch, self._limit = Path(scratch), held_characters
        self._held: dict[str, list[tuple[str, str, str]]] = {}
        self._n_held = self._n_spills = 0

    def add(self, document: Document) -> None:
        """Take one document."""
        self._held.setdefault(document.document_id[:2], []).append(
            (document.document_id, document.group or document.document_id, document.text)
        )
        self._n_held += len(document.text)
        if self._n_held > self._limit:
            self._spill()

    def write(self, path: Path, eval_fraction: float) -> tuple[dict[str, list[str]], int, int]:
        """Write the Parquet file; returns the ids of each split in order, the duplicates dropped, the characters."""
        ids: dict[str, list[str]] = {"train": [], "eval": []}
        n_added, n_characters, held, rows = 0, 0, 0, []
        with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            for bucket in self._buckets():
                n_added += len(bucket)
                unique = {document_id: (group, text) for document_id, group, text in bucket}
                for document_id in sorted(unique):
                    group, text = unique[document_id]
                    split = split_of(group, eval_fraction)
                    ids[split].append(document_id)
                    n_characters += len(text)
                    rows.append((document_id, split, text))
                    held += len(text)
                    if len(rows) == _GROUP_ROWS or held > _GROUP_CHARACTERS:
                        writer.write_table(_table(rows, SCHEMA))
                        held, rows = 0, []
            if rows:
                writer.write_table(_table(rows, SCHEMA))
        return ids, n_added - sum(map(len, ids.values())), n_characters

    def _buckets(self) -> Iterator[list[tuple[str, str, str]]]:
        """Documents by the first digits of their ids, ascending."""
        for prefix in (f"{value:02x}" for value in range(256)):
            bucket = self._held.pop(prefix, [])
            for part in sorted(self._scratch.glob(f"{prefix}-*.parquet")):
                table = pq.read_table(part)
                bucket += zip(*(table[name].to_pylist() for name in _SPILLED.names), strict=True)
            yield bucket

    def _spill(self) -> None:
        for prefix, bucket in self._held.items():
            pq.write_table(
                _table(bucket, _SPILLED), self._scratch / f"{prefix}-{self._n_spills:06d}.parquet", compression="lz4"
            )
        self._held, self._n_held, self._n_spills = {}, 0, self._n_spills + 1


def _table(rows: list[tuple[str, str, str]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
