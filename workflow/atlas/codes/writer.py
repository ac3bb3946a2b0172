"""Writing one codes file: blocks of rows are sorted by latent as they come, then merged into one order by latent."""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.codes.layout import (
    BLOCK_ROWS,
    CHECKSUM_ENTRIES,
    ENTRY_DATASETS,
    FORMAT,
    FORMAT_VERSION,
    MAX_ROWS,
    ROW_DATASETS,
    allocate,
    checksums,
    map_entries,
)
from atlas.errors import StoreError
from atlas.hdf5 import open_hdf5, require_space


@dataclass(frozen=True)
class CodeRows:
    """Token, document and position of every row of the corpus, in the order of the text."""

    tokens: np.ndarray
    document: np.ndarray
    counted: np.ndarray
    massive: np.ndarray


class CodesWriter:
    """Fills a codes file in two passes over the entries, holding one block of rows in memory.

    `write` appends a block, sorted by latent, to an unnamed scratch file; `finish` knows how many entries every latent
    has and puts each block's where they belong. A dense (rows, n_latents) array is never needed here.
    """

    def __init__(self, path: Path, n_latents: int, rows: CodeRows, block_rows: int = BLOCK_ROWS):
        self.path, self.n_latents, self.rows, self.block_rows = Path(path), n_latents, rows, block_rows
        self.n_rows = len(rows.tokens)
        if self.n_rows >= MAX_ROWS:
            raise StoreError(f"{path}: {self.n_rows:,} rows, but row numbers are 32 bits wide: evaluate on less text")
        self.n_blocks = -(-self.n_rows // block_rows)
        self._counts: list[np.ndarray] = []
        self._bits = dict.fromkeys(ENTRY_DATASETS, 0)
        self._scratch = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - lives as long as this object

    def write(self, latent: Int[np.ndarray, " n"], row: Int[np.ndarray, " n"], value: Float[np.ndarray, " n"]) -> None:
        """Add all entries of the next block of rows, with rows rising; raises StoreError on a value that is no code."""
        block = len(self._counts)
        first, last = block * self.block_rows, min((block + 1) * self.block_rows, self.n_rows)
        if len(row) and not (first <= row.min() and row.max() < last):
            raise StoreError(
                f"{self.path}: block {block} holds rows {first} to {last - 1}, given {row.min()} to {row.max()}"
            )
        if not (np.isfinite(value).all() and (value > 0).all()):
            place = int(np.flatnonzero(~(np.isfinite(value) & (value > 0)))[0])
            raise StoreError(
                f"{self.path}: latent {latent[place]} is {value[place]} on row {row[place]}: a code is finite and "
                "above 0; the SAE or the activations are damaged"
            )
        order = np.argsort(latent, kind="stable")
        self._counts.append(np.bincount(latent, minlength=self.n_latents).astype(np.uint64))
        try:
            for name, values in (("row", row), ("value", value)):
                sorted_values = np.ascontiguousarray(values[order], ENTRY_DATASETS[name])
                self._bits[name] += bit_sum(sorted_values)
                self._scratch.write(sorted_values)
        except OSError as error:
            raise self._explain(error) from error

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Merge the blocks, compare what is on disk with what was given, and write checksums and attributes."""
        if len(self._counts) != self.n_blocks:
            raise StoreError(f"{self.path}: {len(self._counts)} blocks of rows were written, expected {self.n_blocks}")
        counts = np.array(self._counts, dtype=np.uint64).reshape(self.n_blocks, self.n_latents)
        starts, n_entries = index_of(counts), int(counts.sum())
        try:
            offsets = self._create(starts, n_entries)
            self._merge(starts, offsets, n_entries)
        except OSError as error:
            raise self._explain(error) from error
        finally:
            self._scratch.close()
        with open_hdf5(self.path, "r+") as file:
            for name, dtype in ENTRY_DATASETS.items():
                entries = map_entries(self.path, "r", offsets[name], n_entries, dtype)
                if bit_sum(entries) != self._bits[name]:
                    raise StoreError(
                        f"{self.path}: {name}s on disk differ from those computed; the disk may be failing"
                    )
                fill(file[f"checksums/{name}"], checksums(entries))
            file.attrs.update(attributes)
            file.attrs["complete"] = True

    def close(self) -> None:
        """Give the scratch file back; harmless after `finish`."""
        self._scratch.close()

    def _create(self, starts: np.ndarray, n_entries: int) -> dict[str, int]:
        # libver v110: its object headers carry checksums, so that a flipped bit in an attribute is noticed too.
        require_space(self.path, 16 * n_entries + 16 * self.n_rows + starts.nbytes + 65536)
        with open_hdf5(self.path, "w", libver=("v110", "v110")) as file:
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "complete": False})
            file.attrs.update({"n_rows": self.n_rows, "n_latents": self.n_latents, "n_entries": n_entries})
            file.attrs["block_rows"] = self.block_rows
            for name, kind in ROW_DATASETS.items():
                fill(file.create_dataset(name, (self.n_rows,), kind), getattr(self.rows, name).astype(kind))
            fill(file.create_dataset("starts", starts.shape, np.uint64), starts)
            for name in ENTRY_DATASETS:
                file.create_dataset(f"checksums/{name}", (-(-n_entries // CHECKSUM_ENTRIES),), np.uint64)
            offsets = {name: allocate(file, name, n_entries, dtype) for name, dtype in ENTRY_DATASETS.items()}
        # Reserved before the first entry: behind a memory map a full disk is a bus error and not an exception.
        with self.path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, self.path.stat().st_size)
        return offsets

    def _merge(self, starts: np.ndarray, offsets: Mapping[str, int], n_entries: int) -> None:
        maps = {
            name: map_entries(self.path, "r+", offsets[name], n_entries, dtype)
            for name, dtype in ENTRY_DATASETS.items()
        }
        self._scratch.seek(0)
        for block, counts in enumerate(self._counts):
            before = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
            shift = starts[block].astype(np.int64) - before  # from the place in the block to the place in the file
            places = np.repeat(shift, counts.astype(np.int64)) + np.arange(int(counts.sum()))
            for name, dtype in ENTRY_DATASETS.items():
                size = len(places) * np.dtype(dtype).itemsize
                maps[name][places] = np.frombuffer(self._scratch.read(size), dtype)
        for entries in maps.values():
            if isinstance(entries, np.memmap):
                entries.flush()

    def _explain(self, error: OSError) -> StoreError:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(self.path.parent).free
            return StoreError(
                f"{self.path}: disk full, {free / 1e9:.3g} GB are free; codes need 16 bytes for every latent that "
                "fires on a row while they are written, 8 after that: free some space or lower eval_tokens"
            )
        return StoreError(f"{self.path}: cannot be written: {error}")


def index_of(counts: Int[np.ndarray, "blocks n_latents"]) -> Int[np.ndarray, "blocks+1 n_latents"]:
    """Return where each latent's entries of each block of rows begin; the last row is where the latents' entries
    end.
    """
    inside = np.vstack([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0, dtype=np.uint64)])
    if not len(counts):
        inside = np.zeros((1, counts.shape[1]), np.uint64)
    ends = np.cumsum(inside[-1], dtype=np.uint64)
    return inside + (ends - inside[-1])


def fill(dataset: h5py.Dataset, values: np.ndarray) -> None:
    """Write a whole dataset and its checksum."""
    dataset[...] = values
    dataset.attrs["xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(np.ascontiguousarray(dataset[...])))


def bit_sum(values: np.ndarray) -> int:
    """Sum of bit patterns: the same in any order, so that moving entries can be proven."""
    return int(values.view(np.uint32).sum(dtype=np.uint64)) if len(values) else 0
