"""Reading activation files: verified blocks through a memory map."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from atlas.activations.layout import BLOCK_ROWS, DISK_TYPES, FACTS, FORMAT, FORMAT_VERSION, IDENTITY, ROW_DATASETS
from atlas.errors import StoreError
from atlas.hdf5 import open_hdf5

_REMEDY = "delete this file and run again; it will be made anew"


@dataclass(frozen=True)
class HookData:
    """Offset of a hook's rows in the file (None: it has facts about them alone), and their statistics."""

    offset: int | None
    d_model: int
    checksums: np.ndarray
    statistics: dict[str, Any]


class Shard:
    """One activation file, opened for reading.

    Row i is the same token in every hook. Rows of `eval` shards keep the order of the text, so that they
    reshape to (contexts, context_length); rows of `train` shards are shuffled. A block of rows, and a column about
    rows (tokens, norms, …), is read and compared with its checksum when it is first asked for: most jobs need a few of
    the 13 bytes a row and four a hook that the columns take, and there may be billions of rows.
    """

    def __init__(self, path: Path, identity: dict[str, Any], n_rows: int, hooks: dict[str, HookData]):
        self.path, self.identity, self._n_rows, self._hooks = path, identity, n_rows, hooks
        self._columns: dict[str, np.ndarray] = {}
        self._verified = {name: np.zeros(len(data.checksums), dtype=bool) for name, data in hooks.items()}

    @classmethod
    def open(cls, path: Path | str, expected: Mapping[str, Any] | None = None) -> "Shard":
        """Open a file and check its metadata.

        `expected` are identity attributes that must match, for example the model's weights_sha256. Raises
        StoreError that names the file, what is wrong with it, and to delete it so that it is made again.
        """
        path = Path(path)
        with _opened(path) as file:
            identity = _read_identity(file, path)
            hooks = {name: _read_hook(group, path) for name, group in file["hooks"].items()}
            n_rows = {len(file[name]) for name in ROW_DATASETS} | {len(file["hooks"][name]["norms"]) for name in hooks}
            if len(n_rows) != 1:
                raise ValueError(f"columns of {sorted(n_rows)} rows")
        for key, value in (expected or {}).items():
            if identity.get(key) != value:
                raise StoreError(
                    f"{path}: {key} is {identity.get(key)!r}, expected {value!r}: these activations belong to "
                    f"something else; {_REMEDY}"
                )
        return cls(path, identity, n_rows.pop(), hooks)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._n_rows

    @property
    def tokens(self) -> np.ndarray:
        """Token of every row, (rows,)."""
        return self._column("tokens")

    @property
    def document(self) -> np.ndarray:
        """Number of the document that each row is of, (rows,)."""
        return self._column("document")

    @property
    def position(self) -> np.ndarray:
        """Place of each row in its context, (rows,)."""
        return self._column("position")

    @cached_property
    def counted(self) -> np.ndarray:
        """Return which rows are text and not padding or special, bool (rows,)."""
        return self._column("counted").astype(bool)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Hook points in the file."""
        return tuple(self._hooks)

    @property
    def context_length(self) -> int:
        """Tokens of one context."""
        return int(self.identity["context_length"])

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the rows."""
        return torch.bfloat16 if self.identity["storage_dtype"] == "bfloat16" else torch.float32

    def d_model(self, hook: str) -> int:
        """Width of a hook's rows."""
        return self._data(hook).d_model

    def norms(self, hook: str) -> np.ndarray:
        """Euclidean norm of every row, float32 (rows,)."""
        self._data(hook)
        return self._column(f"hooks/{hook}/norms")

    def statistics(self, hook: str) -> dict[str, Any]:
        """Float64 statistics over the counted rows: see docs/activation_format.md."""
        return self._data(hook).statistics

    def read_rows(self, hook: str, start: int, stop: int) -> Float[Tensor, "rows d_model"]:
        """Rows start to stop in the storage dtype, as a copy; raises StoreError when a checksum differs."""
        if not 0 <= start <= stop <= self.n_rows:
            raise StoreError(f"{self.path}: rows {start} to {stop} asked for, the file has {self.n_rows}")
        rows = self.empty_rows(hook, stop - start)
        self.verify(hook, start, stop)
        np.copyto(rows, self._maps[hook][start:stop])
        return self.as_tensor(rows)

    def empty_rows(self, hook: str, n_rows: int) -> np.ndarray:
        """Room for rows of a hook as they lie on disk: (rows, d_model) of uint16 or float32."""
        return np.empty((n_rows, self.d_model(hook)), DISK_TYPES[self.identity["storage_dtype"]])

    def as_tensor(self, rows: np.ndarray) -> Float[Tensor, "rows d_model"]:
        """The same memory as a tensor of the storage dtype."""
        tensor = torch.from_numpy(rows)
        return tensor.view(torch.bfloat16) if self.dtype == torch.bfloat16 else tensor

    def read_into(self, target: np.ndarray, hook: str, rows: np.ndarray) -> None:
        """Copy `rows`, which rise, from the file's pages straight to `target`, which `empty_rows` made.

        Raises StoreError when a checksum differs.
        """
        if rows[0] < 0 or rows[-1] >= self.n_rows:
            raise StoreError(f"{self.path}: rows {rows[0]} to {rows[-1]} asked for, the file has {self.n_rows}")
        self.verify(hook, int(rows[0]), int(rows[-1]) + 1)
        source = self._whole_rows[hook]
        # "clip" only spares a copy that the default makes to survive an error: the numbers are checked above.
        np.take(source, rows, out=target.view(source.dtype)[:, 0], mode="clip")

    def announce(self, hook: str, start: int, stop: int) -> None:
        """Have the system fetch rows start to stop with what their checksums need, if they are read for the first time.

        Without it a disk is asked for one piece at a time: blocks are drawn from anywhere in the file, where the
        system's own reading ahead finds no order. Later the pages are mapped, and asking costs a fifth of a read.
        """
        blocks = slice(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS))
        if self._verified[hook][blocks].all():
            return
        start, stop = blocks.start * BLOCK_ROWS, min(blocks.stop * BLOCK_ROWS, self.n_rows)
        offset = self._hooks[hook].offset
        assert offset is not None  # the maps are made of rows
        begin, end = (offset + row * self._maps[hook].strides[0] for row in (start, stop))
        begin -= begin % mmap.PAGESIZE
        self._file_map.madvise(mmap.MADV_WILLNEED, begin, end - begin)

    def verify(self, hook: str, start: int, stop: int) -> None:
        """Compare rows start to stop with their checksums, where that was not done before; raises StoreError."""
        verified, data = self._verified[hook], self._hooks[hook]
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            if verified[block]:
                continue
            first = block * BLOCK_ROWS
            content = self._maps[hook][first : first + BLOCK_ROWS]
            if xxhash.xxh3_64_intdigest(content) != data.checksums[block]:
                last = min(first + BLOCK_ROWS, self.n_rows) - 1
                raise StoreError(
                    f"{self.path}: rows {first} to {last} of {hook} differ from their checksum: the file was altered "
                    "or the disk is failing; delete this file and run again; it will be made anew"
                )
            verified[block] = True

    @cached_property
    def _file_map(self) -> mmap.mmap:
        with self.path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        kind = DISK_TYPES[self.identity["storage_dtype"]]
        offsets = {name: data.offset for name, data in self._hooks.items() if data.offset is not None}
        if len(offsets) < len(self._hooks):
            raise StoreError(
                f"{self.path}: has facts about rows and no rows, which harvest.mode 'stream' does not keep; use mode "
                "'store' for what reads rows of training text"
            )
        return {
            name: np.frombuffer(self._file_map, kind, self.n_rows * data.d_model, offsets[name]).reshape(
                self.n_rows, data.d_model
            )
            for name, data in self._hooks.items()
        }

    @cached_property
    def _whole_rows(self) -> dict[str, np.ndarray]:
        """The maps with a row as one item, which NumPy copies whole, in less time than an array of numbers."""
        return {name: rows.view((np.void, rows.strides[0]))[:, 0] for name, rows in self._maps.items()}

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            with _opened(self.path) as file:
                self._columns[name] = _read_checked(file[name], self.path)
        return self._columns[name]

    def _data(self, hook: str) -> HookData:
        if hook not in self._hooks:
            raise StoreError(f"{self.path}: has no hook {hook!r}, only {', '.join(self._hooks)}")
        return self._hooks[hook]


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file for reading; what its damage may surface as becomes a StoreError that names it."""
    try:
        with open_hdf5(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise StoreError(f"{path}: no such activation file") from None
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: truncated, altered or not an activation file ({error}); {_REMEDY}") from error


def _read_identity(file: h5py.File, path: Path) -> dict[str, Any]:
    found = (file.attrs.get("format"), file.attrs.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise StoreError(f"{path}: format and version are {found}, expected {(FORMAT, FORMAT_VERSION)}")
    if not file.attrs.get("complete", False):
        raise StoreError(f"{path}: was never finished; delete this file and run again; it will be made anew")
    return {key: _plain(file.attrs[key]) for key in IDENTITY}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _read_checked(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    values = dataset[:]
    if xxhash.xxh3_64_intdigest(values) != int(dataset.attrs["xxh3"]):
        raise StoreError(
            f"{path}: {dataset.name} differs from its checksum; delete this file and run again; it will be made anew"
        )
    return values


def _read_hook(group: h5py.Group, path: Path) -> HookData:
    statistics = {key: _plain(value) for key, value in group.attrs.items()}
    statistics["mean"] = _read_checked(group["mean"], path)
    statistics["mean_regular"] = _read_checked(group["mean_regular"], path)
    if group.file.attrs.get("contents") == FACTS:
        blocks = -(-len(group["norms"]) // BLOCK_ROWS)
        return HookData(None, len(statistics["mean"]), np.zeros(blocks, dtype=np.uint64), statistics)
    activations = group["activations"]
    offset = activations.id.get_offset()
    if offset is None:
        raise StoreError(f"{path}: {activations.name} is not contiguous")
    return HookData(offset, activations.shape[1], _read_checked(group["checksums"], path), statistics)


def open_shards(paths: list[Path], expected: Mapping[str, Any] | None = None) -> list[Shard]:
    """Open the shards of one (model, corpus, split); raises StoreError when they do not belong together."""
    shards = sorted((Shard.open(path, expected) for path in paths), key=lambda shard: shard.identity["shard"])
    first = shards[0]
    varying = ("shard", "shuffle_seed")
    for number, shard in enumerate(shards):
        for key, value in first.identity.items():
            if key not in varying and shard.identity[key] != value:
                raise StoreError(f"{shard.path}: {key} is {shard.identity[key]!r}, but {value!r} in {first.path}")
        if shard.identity["shard"] != number or len(shards) != shard.identity["n_shards"]:
            raise StoreError(
                f"{shard.path}: is shard {shard.identity['shard']} of {shard.identity['n_shards']}, "
                f"but stands at place {number} of {len(shards)} given files"
            )
    return shards


def shards_by_corpus(paths: Sequence[Path], expected: Mapping[str, Any]) -> dict[str, list[Shard]]:
    """Open shards, or facts, and group them by corpus; each group must be whole.

    Paths end in <corpus>/<split>-<shard>.h5, or <corpus>/facts-<shard>.h5.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.parent.name, []).append(path)
    return {name: open_shards(group, expected) for name, group in groups.items()}
