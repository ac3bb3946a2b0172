"""Check an activation file against docs/activation_format.md, rule by rule, without the reader's code.

Run as ``python -m atlas.activations.validate FILE...``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
import xxhash

from atlas.activations.layout import (
    BLOCK_ROWS,
    DISK_TYPES,
    FACTS,
    FORMAT,
    FORMAT_VERSION,
    IDENTITY,
    ROW_DATASETS,
)
from atlas.hdf5 import open_hdf5
from atlas.massive import MASSIVE_FACTOR


def violations(path: Path | str) -> list[str]:
    """Every rule of the format that the file breaks, in words; empty when it is valid."""
    try:
        with open_hdf5(path, "r") as file:
            return list(_check_file(file))
    except OSError as error:
        return [f"cannot be opened as HDF5: {error}"]


def _check_file(file: h5py.File) -> Iterator[str]:
    if (file.attrs.get("format"), file.attrs.get("format_version")) != (FORMAT, FORMAT_VERSION):
        yield f"format is {file.attrs.get('format')!r} version {file.attrs.get('format_version')!r}"
    if not file.attrs.get("complete", False):
        yield "attribute complete is not true"
    missing = [key for key in IDENTITY if key not in file.attrs]
    absent = [name for name in (*ROW_DATASETS, "hooks") if name not in file]
    yield from (f"attribute {key} is missing" for key in missing)
    yield from (f"{name} is missing" for name in absent)
    if missing or absent:
        return
    n_rows = len(file["tokens"])
    for name, kind in ROW_DATASETS.items():
        if file[name].shape != (n_rows,) or file[name].dtype != np.dtype(kind):
            yield f"{name} is {file[name].dtype} {file[name].shape}, expected {kind} ({n_rows},)"
        yield from _check_digest(file[name])
    yield from _check_order(file)
    for group in file["hooks"].values():
        yield from _check_hook(group, file, n_rows)


def _check_order(file: h5py.File) -> Iterator[str]:
    context_length, split = int(file.attrs["context_length"]), file.attrs["split"]
    position = file["position"][:]
    if len(position) % context_length:
        yield f"{len(position)} rows are no whole contexts of {context_length}"
        return
    counts = np.bincount(position, minlength=context_length)
    if len(counts) != context_length or (counts != len(position) // context_length).any():
        yield "positions do not occur equally often"
    in_order = (position == np.arange(len(position)) % context_length).all()
    if split == "eval" and (not in_order or file.attrs["shuffle_seed"] != -1):
        yield "rows of an eval shard are not in sequence"
    if split == "train" and file.attrs["shuffle_seed"] < 0:
        yield "a train shard has no shuffle_seed"


def _check_hook(group: h5py.Group, file: h5py.File, n_rows: int) -> Iterator[str]:
    if file.attrs.get("contents") == FACTS:
        for name in ("norms", "mean", "mean_regular"):
            yield from _check_digest(group[name])
        if "activations" in group:
            yield f"a file of facts has rows of {group.name}"
        return
    stored, activations = file.attrs["storage_dtype"], group["activations"]
    if activations.chunks is not None or activations.id.get_offset() is None:
        yield f"{activations.name} is not contiguous"
    if activations.attrs.get("torch_dtype") != stored or activations.dtype != np.dtype(DISK_TYPES[stored]):
        yield f"{activations.name} is {activations.dtype}, torch_dtype {activations.attrs.get('torch_dtype')!r}"
    for name in ("norms", "checksums", "mean", "mean_regular"):
        yield from _check_digest(group[name])
    counted, norms = file["counted"][:].astype(bool), group["norms"][:]
    regular = counted & (norms <= MASSIVE_FACTOR * np.median(norms[counted]))
    sums = {"mean": 0.0, "mean_regular": 0.0}
    for number, first in enumerate(range(0, n_rows, BLOCK_ROWS)):
        raw = activations[first : first + BLOCK_ROWS]
        if xxhash.xxh3_64_intdigest(raw) != int(group["checksums"][number]):
            yield f"block {number} of {activations.name} differs from its checksum"
        values = torch.from_numpy(raw)
        values = (values.view(torch.bfloat16) if stored == "bfloat16" else values).double().numpy()
        if not np.isfinite(values).all():
            yield f"block {number} of {activations.name} has values that are not finite"
        if not np.allclose(np.linalg.norm(values, axis=1), norms[first : first + BLOCK_ROWS], rtol=1e-2):
            yield f"norms of block {number} of {activations.name} are not those of its rows"
        for key, mask in (("mean", counted), ("mean_regular", regular)):
            sums[key] = sums[key] + values[mask[first : first + BLOCK_ROWS]].sum(axis=0)
    for key, mask in (("mean", counted), ("mean_regular", regular)):
        if not np.allclose(group[key][:], sums[key] / mask.sum(), rtol=1e-6, atol=1e-6):
            yield f"{key} of {activations.name} is not the mean of its rows"
    expected = {"count": counted.sum(), "count_regular": regular.sum(), "n_nonfinite": 0}
    yield from (
        f"{key} of {activations.name} is {group.attrs.get(key)}, expected {value}"
        for key, value in expected.items()
        if group.attrs.get(key) != value
    )


def _check_digest(dataset: h5py.Dataset) -> Iterator[str]:
    if int(dataset.attrs.get("xxh3", 0)) != xxhash.xxh3_64_intdigest(dataset[:]):
        yield f"{dataset.name} differs from its checksum"


def main(paths: list[str]) -> int:
    """Print the violations of each file; the status is their number, at most 1."""
    found = [f"{path}: {text}" for path in paths for text in violations(path)]
    print("\n".join(found) or f"{len(paths)} file(s) valid")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
