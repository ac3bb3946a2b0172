"""Names and constants of the codes format; docs/codes_format.md is the normative text."""

from collections.abc import Sequence
from typing import Literal

import h5py
import numpy as np
import xxhash

FORMAT, FORMAT_VERSION = "sae-atlas-codes", 1

# Rows that are gathered and sorted in memory at once, and the grain of reading by row. The index has an entry per
# latent and block of rows: about 1 % of the file at 64 latents a row.
BLOCK_ROWS = 32_768
# Entries of one checksum: 256 KiB of rows and as much of values.
CHECKSUM_ENTRIES = 65_536
MAX_ROWS = 2**32

# Per-row datasets, and their NumPy types.
ROW_DATASETS = {"tokens": "uint32", "document": "int32", "counted": "uint8", "massive": "uint8"}
# Per-entry datasets.
ENTRY_DATASETS = {"row": "uint32", "value": "float32"}

# Attributes of the file that say what it is.
IDENTITY = (
    "dictionary",
    "sae_sha256",
    "architecture",
    "hook",
    "seed",
    "model",
    "weights_sha256",
    "tokenizer_sha256",
    "corpus",
    "corpus_fingerprint",
    "context_length",
    "massive_norms",
    "versions",
)


def checksums(values: np.ndarray) -> np.ndarray:
    """XXH3-64 of each block of `CHECKSUM_ENTRIES` entries."""
    starts: Sequence[int] = range(0, len(values), CHECKSUM_ENTRIES)
    return np.array([xxhash.xxh3_64_intdigest(values[i : i + CHECKSUM_ENTRIES]) for i in starts], dtype=np.uint64)


def allocate(file: h5py.File, name: str, length: int, dtype: str) -> int:
    """Create a contiguous one-dimensional dataset whose place is fixed now, unfilled; returns its offset in the file.

    A dataset without entries has no place: its offset is 0.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space, kind = h5py.h5s.create_simple((length,)), h5py.h5t.py_create(np.dtype(dtype))
    return h5py.h5d.create(file.id, name.encode(), kind, space, properties).get_offset() or 0


def map_entries(path, mode: Literal["r", "r+"], offset: int, length: int, dtype: str) -> np.ndarray:
    """A memory map of a per-entry dataset; an empty file region cannot be mapped, so nothing is an empty array."""
    return np.memmap(path, dtype, mode, offset, (length,)) if length else np.empty(0, dtype)
