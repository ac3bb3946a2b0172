"""Reading codes files: by latent, or by block of rows, verified through a memory map."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.codes.layout import (
    CHECKSUM_ENTRIES,
    ENTRY_DATASETS,
    FORMAT,
    FORMAT_VERSION,
    IDENTITY,
    ROW_DATASETS,
    map_entries,
)
from atlas.errors import StoreError
from atlas.hdf5 import open_hdf5

_REMEDY = "delete this file and run again; it will be made anew"
_SHAPE = ("n_rows", "n_latents", "n_entries", "block_rows")


@dataclass(frozen=True)
class LatentEntries:
    """Entries of latents `first` to `first + len(indptr) - 2`: those of the i-th are `indptr[i]` to `indptr[i + 1]`."""

    first: int
    indptr: Int[np.ndarray, " ends"]
    row: Int[np.ndarray, " entries"]
    value: Float[np.ndarray, " entries"]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return len(self.indptr) - 1

    @property
    def latent(self) -> Int[np.ndarray, " entries"]:
        """Latent of each entry, counted from `first`."""
        return np.repeat(np.arange(self.n_latents), np.diff(self.indptr))

    def only(self, keep: np.ndarray) -> "LatentEntries":
        """The entries for which `keep` (entries,) is true."""
        kept = np.concatenate([[0], np.cumsum(keep)])
        return LatentEntries(self.first, kept[self.indptr], self.row[keep], self.value[keep])


class Codes:
    """One codes file, opened for reading; entries are compared with their checksums when they are first read."""

    def __init__(self, path: Path, attributes: dict[str, Any], arrays: dict[str, np.ndarray], offsets: dict[str, int]):
        self.path, self.identity = path, {key: attributes[key] for key in IDENTITY}
        self.n_rows, self.n_latents, self.n_entries, self.block_rows = (int(attributes[key]) for key in _SHAPE)
        self.tokens, self.document = arrays["tokens"], arrays["document"]
        self.counted, self.massive = arrays["counted"].astype(bool), arrays["massive"].astype(bool)
        self._starts, self._offsets = arrays["starts"].astype(np.int64), offsets
        self._checksums = {name: arrays[f"checksums/{name}"] for name in ENTRY_DATASETS}
        self._verified = {name: np.zeros(len(values), bool) for name, values in self._checksums.items()}

    @classmethod
    def open(cls, path: Path | str, expected: Mapping[str, Any] | None = None) -> "Codes":
        """Open a file and check its metadata; `expected` are identity attributes that must match.

        Raises StoreError that names the file, what is wrong with it, and what to do.
        """
        path = Path(path)
        names = [*ROW_DATASETS, "starts", *(f"checksums/{name}" for name in ENTRY_DATASETS)]
        try:
            with open_hdf5(path, "r") as file:
                attributes = _read_attributes(file, path)
                arrays = {name: _read_checked(file[name], path) for name in names}
                offsets = {name: file[name].id.get_offset() or 0 for name in ENTRY_DATASETS}
        except FileNotFoundError:
            raise StoreError(f"{path}: no such codes file; run the rule that encodes this corpus") from None
        except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            # Damaged HDF5 structures surface as any of these.
            raise StoreError(f"{path}: truncated, altered or not a codes file ({error}); {_REMEDY}") from error
        for key, value in (expected or {}).items():
            if attributes.get(key) != value:
                raise StoreError(
                    f"{path}: {key} is {attributes.get(key)!r}, expected {value!r}: these codes belong to something "
                    f"else; {_REMEDY}"
                )
        return cls(path, attributes, arrays, offsets)

    @property
    def context_length(self) -> int:
        """Tokens of one context: rows reshape to (contexts, context_length)."""
        return int(self.identity["context_length"])

    @property
    def regular(self) -> Bool[np.ndarray, " rows"]:
        """Return which rows count and have no massive activation: rows like those that SAEs learn by default."""
        return self.counted & ~self.massive

    @property
    def n_firings(self) -> Int[np.ndarray, " n_latents"]:
        """Return how often each latent fires on any row, counted or not."""
        return self._starts[-1] - self._starts[0]

    def latents(self, start: int, stop: int) -> LatentEntries:
        """Entries of latents start to stop, rows rising within each; one read of consecutive bytes."""
        if not 0 <= start <= stop <= self.n_latents:
            raise StoreError(f"{self.path}: latents {start} to {stop} asked for, the file has {self.n_latents}")
        indptr = np.append(self._starts[0, start:stop], self._starts[-1, stop - 1] if stop > start else 0)
        first, last = int(indptr[0]), int(indptr[-1])
        return LatentEntries(start, indptr - first, self._read("row", first, last), self._read("value", first, last))

    def blocks(self, max_entries: int = 2**22, max_latents: int = 1024) -> Iterator[LatentEntries]:
        """All latents in order: at a time at most `max_latents` and `max_entries` entries, but at least one latent."""
        ends, start = self._starts[-1], 0
        while start < self.n_latents:
            stop = int(np.searchsorted(ends, self._starts[0, start] + max_entries, side="right"))
            stop = max(min(stop, start + max_latents), start + 1)
            yield self.latents(start, stop)
            start = stop

    def rows(self, start: int, stop: int) -> LatentEntries:
        """Entries of rows start to stop, still sorted by latent. Cheapest for whole blocks of `block_rows` rows."""
        if not 0 <= start <= stop <= self.n_rows:
            raise StoreError(f"{self.path}: rows {start} to {stop} asked for, the file has {self.n_rows}")
        first, last = start // self.block_rows, -(-stop // self.block_rows)
        begins, ends = self._starts[first], self._starts[last]
        counts = ends - begins
        indptr = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(begins - indptr[:-1], counts) + np.arange(indptr[-1])
        for name in ENTRY_DATASETS:
            self._verify(name, np.unique(places // CHECKSUM_ENTRIES))
        entries = LatentEntries(0, indptr, np.array(self._maps["row"][places]), np.array(self._maps["value"][places]))
        return entries.only((entries.row >= start) & (entries.row < stop))

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        self._verify(name, np.arange(start // CHECKSUM_ENTRIES, -(-stop // CHECKSUM_ENTRIES)))
        return np.array(self._maps[name][start:stop])

    def _verify(self, name: str, blocks: np.ndarray) -> None:
        for block in blocks[~self._verified[name][blocks]]:
            first = int(block) * CHECKSUM_ENTRIES
            content = self._maps[name][first : first + CHECKSUM_ENTRIES]
            if xxhash.xxh3_64_intdigest(content) != self._checksums[name][block]:
                latent = int(np.searchsorted(self._starts[-1], first, side="right"))
                raise StoreError(
                    f"{self.path}: {name}s of entries {first} to {first + len(content) - 1} (from latent {latent} on) "
                    f"differ from their checksum: the file was altered or the disk is failing; {_REMEDY}"
                )
            self._verified[name][block] = True

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {
            name: map_entries(self.path, "r", self._offsets[name], self.n_entries, dtype)
            for name, dtype in ENTRY_DATASETS.items()
        }


def _read_attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    found = (file.attrs.get("format"), file.attrs.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise StoreError(f"{path}: format and version are {found}, expected {(FORMAT, FORMAT_VERSION)}; {_REMEDY}")
    if not file.attrs.get("complete", False):
        raise StoreError(f"{path}: was never finished; {_REMEDY}")
    values = {key: file.attrs[key] for key in (*IDENTITY, *_SHAPE)}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}


def _read_checked(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    values = dataset[...]
    if xxhash.xxh3_64_intdigest(np.ascontiguousarray(values)) != int(dataset.attrs["xxh3"]):
        raise StoreError(f"{path}: {dataset.name} differs from its checksum; {_REMEDY}")
    return values
