"""Shards of a window in host memory: written and read like files, and never on a disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atlas.activations.layout import BLOCK_ROWS, DISK_TYPES, ROW_DATASETS
from atlas.activations.store import HookData, Shard
from atlas.activations.writer import RowColumns, RowWriter
from atlas.errors import StoreError


class MemoryShard(Shard):
    """Rows of a shard in main memory, the same to the bit as in its activation file."""

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        columns: Mapping[str, np.ndarray],
        rows: Mapping[str, np.ndarray],
        norms: Mapping[str, np.ndarray],
        statistics: Mapping[str, dict[str, Any]],
    ):
        n_rows = len(columns["tokens"])
        checksums = np.zeros(-(-n_rows // BLOCK_ROWS), dtype=np.uint64)
        hooks = {name: HookData(0, rows[name].shape[1], checksums, statistics[name]) for name in rows}
        super().__init__(path, identity, n_rows, hooks)
        self._columns = dict(columns) | {f"hooks/{name}/norms": values for name, values in norms.items()}
        self._maps = dict(rows)
        for verified in self._verified.values():
            verified[:] = True  # memory is not a disk: there is no checksum to compare with


class MemoryWriter(RowWriter):
    """Fills a `MemoryShard`. `path` names it in errors."""

    def __init__(self, path: Path, columns: RowColumns, widths: Mapping[str, int], storage_dtype: str):
        kind, n_rows = DISK_TYPES[storage_dtype], len(columns.tokens)
        rows = {name: np.empty((n_rows, width), kind) for name, width in widths.items()}
        super().__init__(rows, columns, storage_dtype)
        self._path, self._columns = path, columns

    def finish(self, attributes: Mapping[str, Any]) -> MemoryShard:
        """Return the shard; raises StoreError unless every row was written as it was captured."""
        statistics = {name: found for name, (_, found) in self.finished_hooks(self._path).items()}
        columns = {name: getattr(self._columns, name).astype(kind) for name, kind in ROW_DATASETS.items()}
        return MemoryShard(self._path, dict(attributes), columns, self._rows, self._norms, statistics)


class WindowShards:
    """Shards of one corpus by number, of which only those of windows at hand are there."""

    def __init__(self, corpus: str):
        self.corpus = corpus
        self._shards: dict[int, Shard] = {}

    def __getitem__(self, number: int) -> Shard:
        if number not in self._shards:
            raise StoreError(
                f"shard {number} of corpus {self.corpus!r} is in no window at hand, which has "
                f"{sorted(self._shards) or 'none'}: this is a fault of the schedule, please report it"
            )
        return self._shards[number]

    def put(self, number: int, shard: Shard) -> None:
        """Add a shard."""
        self._shards[number] = shard

    def drop(self, number: int) -> Shard:
        """Remove a shard, and return it."""
        return self._shards.pop(number)


def bytes_of_rows(n_rows: int, widths: Mapping[str, int], storage_dtype: str) -> int:
    """Memory that a window of so many rows takes, with its columns and norms."""
    once = sum(np.dtype(kind).itemsize for kind in ROW_DATASETS.values())
    value = np.dtype(DISK_TYPES[storage_dtype]).itemsize
    return n_rows * (once + sum(4 + value * width for width in widths.values()))
