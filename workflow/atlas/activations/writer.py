"""Writing one activation file: reserve, scatter, check, publish."""

import errno
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from atlas.activations.layout import BLOCK_ROWS, DISK_TYPES, FORMAT, FORMAT_VERSION, ROW_DATASETS
from atlas.errors import StoreError
from atlas.hdf5 import LIBVER, allocate, open_hdf5, require_space, reserve
from atlas.massive import MASSIVE_FACTOR


@dataclass(frozen=True)
class RowColumns:
    """Token, document and position of every row, in the order in which the rows will be stored."""

    tokens: np.ndarray
    document: np.ndarray
    position: np.ndarray
    counted: np.ndarray


class RowWriter:
    """Puts captured rows at their places in arrays, converted to the storage dtype, and takes their norms.

    Rows may be written in any order; each must be written once.
    """

    def __init__(self, rows: Mapping[str, np.ndarray], columns: RowColumns, storage_dtype: str):
        self.storage_dtype, self._rows = storage_dtype, dict(rows)
        self.n_rows, self._counted = len(columns.tokens), columns.counted.astype(bool)
        self._bits = dict.fromkeys(rows, 0)
        self._threads = ThreadPoolExecutor(min(len(rows), torch.get_num_threads()), "activation-hook")
        self._norms = {name: np.full(self.n_rows, np.nan, dtype=np.float32) for name in rows}

    def write_batch(self, places: np.ndarray, captured: Mapping[str, Float[Tensor, "rows d_model"]]) -> None:
        """Put the rows of every hook at `places`, hooks side by side; errors are those of `write`."""
        list(self._threads.map(lambda name: self.write(name, places, captured[name]), captured))

    def write(self, hook: str, places: np.ndarray, values: Float[Tensor, "rows d_model"]) -> None:
        """Put rows at `places`; raises StoreError on a value that is not finite."""
        norms = values.float().norm(dim=1)
        if not torch.isfinite(norms).all():
            row = int((~torch.isfinite(norms)).nonzero()[0, 0])
            raise StoreError(f"{hook}: a captured activation is not finite (row {row} of a batch of {len(values)})")
        stored = values.to(torch.bfloat16 if self.storage_dtype == "bfloat16" else torch.float32).contiguous()
        raw = stored.view(torch.uint16).numpy() if self.storage_dtype == "bfloat16" else stored.numpy()
        row = np.dtype((np.void, raw.strides[0]))  # a row as one item is copied whole
        self._rows[hook].view(row)[:, 0][places] = raw.view(row)[:, 0]
        self._norms[hook][places] = norms.numpy()
        self._bits[hook] += _bit_sum(raw)

    def _require_written(self, name: str, where: object) -> None:
        if missing := int(np.isnan(self._norms[name]).sum()):
            raise StoreError(f"{where}: {missing} rows of {name} were never written")

    def finished_hooks(self, where: object) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        """Checksums and statistics of each hook, from what was written; raises StoreError where that is not what was
        captured. `where` names it.
        """
        return dict(
            zip(self._rows, self._threads.map(lambda name: self._finish_hook(name, where), self._rows), strict=True)
        )

    def _finish_hook(self, name: str, where: object) -> tuple[np.ndarray, dict[str, Any]]:
        norms, rows = self._norms[name], self._rows[name]
        self._require_written(name, where)
        median = float(np.median(norms[self._counted])) if self._counted.any() else 0.0
        regular = self._counted & (norms <= MASSIVE_FACTOR * median)
        massive = self._counted & ~regular
        sum_regular, sum_massive = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        checksums, max_abs, bits = [], 0.0, 0
        for first in range(0, self.n_rows, BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            raw = np.ascontiguousarray(rows[block])
            checksums.append(xxhash.xxh3_64_intdigest(raw))
            bits += _bit_sum(raw)
            sum_regular += _sum(raw[regular[block]])
            sum_massive += _sum(raw[massive[block]])
            max_abs = max(max_abs, float(_as_tensor(raw).abs().max()))
        if bits % 2**64 != self._bits[name] % 2**64:
            raise StoreError(f"{where}: rows of {name} differ from those captured; the disk or memory may be failing")
        squares = norms.astype(np.float64) ** 2
        return np.array(checksums, dtype=np.uint64), {
            "mean": (sum_regular + sum_massive) / max(1, self._counted.sum()),
            "mean_regular": sum_regular / max(1, regular.sum()),
            "count": int(self._counted.sum()),
            "count_regular": int(regular.sum()),
            "sum_square_norm": float(squares[self._counted].sum()),
            "sum_square_norm_regular": float(squares[regular].sum()),
            "median_norm": median,
            "max_abs": max_abs,
            "n_nonfinite": 0,  # a non-finite value stops the harvest
        }


class ShardWriter(RowWriter):
    """Fills a temporary activation file; `finish` checks it. The caller renames it into place.

    Space is reserved before the first row, because a full disk behind a memory map is a bus error and not an
    exception. `finish` proves that each row was written once.
    """

    def __init__(self, path: Path, columns: RowColumns, widths: Mapping[str, int], storage_dtype: str):
        self.path, self.widths, self.storage_dtype = path, dict(widths), storage_dtype
        self.n_rows = len(columns.tokens)
        try:
            offsets = self._create(columns)
        except OSError as error:
            raise self._explain(error) from error
        kind = DISK_TYPES[storage_dtype]
        rows = {
            name: np.memmap(path, kind, "r+", offsets[name], (self.n_rows, width)) for name, width in widths.items()
        }
        super().__init__(rows, columns, storage_dtype)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Compute statistics and checksums from what is on disk, and compare it with what was captured."""
        finished = self.finished_hooks(self.path)
        self._rows.clear()
        with open_hdf5(self.path, "r+") as file:
            for name, (checksums, statistics) in finished.items():
                group = file["hooks"][name]
                means = {key: statistics.pop(key) for key in ("mean", "mean_regular")}
                for key, values in {"checksums": checksums, "norms": self._norms[name], **means}.items():
                    _fill(group[key], values)
                group.attrs.update(statistics)
            file.attrs.update(attributes)
            file.attrs["complete"] = True

    def _create(self, columns: RowColumns) -> dict[str, int]:
        require_space(self.path, self._needed() + 65536)
        with open_hdf5(self.path, "w", libver=LIBVER) as file:
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "complete": False})
            for name, kind in ROW_DATASETS.items():
                values = getattr(columns, name).astype(kind)
                _fill(file.create_dataset(name, shape=values.shape, dtype=kind), values)
            for name, width in self.widths.items():
                group = file.create_group(f"hooks/{name}")
                allocate(group, "activations", (self.n_rows, width), DISK_TYPES[self.storage_dtype])
                group["activations"].attrs["torch_dtype"] = self.storage_dtype
                group.create_dataset("norms", shape=(self.n_rows,), dtype=np.float32)
                group.create_dataset("checksums", shape=(-(-self.n_rows // BLOCK_ROWS),), dtype=np.uint64)
                group.create_dataset("mean", shape=(width,), dtype=np.float64)
                group.create_dataset("mean_regular", shape=(width,), dtype=np.float64)
            offsets = {name: file["hooks"][name]["activations"].id.get_offset() for name in self.widths}
        reserve(self.path)
        return offsets

    def _needed(self) -> int:
        """Bytes of the file: activations and norms, and what is stored once a row."""
        once = sum(np.dtype(kind).itemsize for kind in ROW_DATASETS.values())
        width = np.dtype(DISK_TYPES[self.storage_dtype]).itemsize * sum(self.widths.values())
        return self.n_rows * (once + 4 * len(self.widths) + width)

    def _explain(self, error: OSError) -> StoreError:
        needed = self._needed()
        free = shutil.disk_usage(self.path.parent).free
        # HDF5 reports a full disk without errno; too little free space says the same.
        if error.errno == errno.ENOSPC or free < needed:
            return StoreError(
                f"{self.path}: disk full: the file needs {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; "
                "free some space or lower the token budget or shard_tokens of the model"
            )
        return StoreError(f"{self.path}: cannot be written: {error}")


def _fill(dataset: h5py.Dataset, values: np.ndarray) -> None:
    dataset[...] = values
    dataset.attrs["xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(dataset[...]))


def _bit_sum(raw: np.ndarray) -> int:
    """Sum of a block's bit patterns, modulo 2^64.

    The same for any order of the rows, so that a scattered write can be proven. Wide words where whole ones make a
    row: a quarter of the additions.
    """
    word = next(word for word in (np.uint64, np.uint32, np.uint16) if raw.strides[0] % np.dtype(word).itemsize == 0)
    return int(raw.view(word).sum(dtype=np.uint64))


def _sum(raw: np.ndarray) -> np.ndarray:
    """Sum of rows in float64."""
    return _as_tensor(raw).double().sum(dim=0).numpy()


def _as_tensor(raw: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(raw)
    return tensor.view(torch.bfloat16) if raw.dtype == np.uint16 else tensor
