"""A job that every framework understands: the recipe, and which rows of which files make up each batch.

No row is copied: the job points into the activation files, whose datasets are contiguous, and a runner maps them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.activations.store import Shard
from atlas.activations.stream import BatchStream
from atlas.config.recipe import Recipe
from atlas.files import atomic_path, write_plain_json
from atlas.hdf5 import open_hdf5
from atlas.training.normalise import normalisation_of_sae
from atlas.training.schedule import base_lr

# Recipe settings that a job has under the same name.
TAKEN = ("architecture", "n_latents", "k", "steps", "batch_size", "warmup_steps", "decay_start", "aux_coefficient")
TAKEN += ("dead_feature_tokens", "threshold_beta", "threshold_start_step")


@dataclass(frozen=True)
class RowsFile:
    """Contiguous rows in a file, `offset` in bytes."""

    path: str
    offset: int
    n_rows: int


def write_job(
    target: Path,
    recipe: Recipe,
    files: list[RowsFile],
    storage_dtype: str,
    d_model: int,
    order: np.ndarray,
    scale: float,
    seed: int,
    threads: int,
    device: str = "cpu",
    options: dict[str, Any] | None = None,
) -> None:
    """Write a job and, beside it, the row numbers of its batches (`order`, (steps, batch_size), through all files).

    Rows are divided by `scale` before training. `options` belong to the runner of one framework.
    """
    order_file = target.with_suffix(".npy")
    with atomic_path(order_file) as temporary, temporary.open("wb") as stream:
        np.save(stream, order)
    write_plain_json(
        target,
        {name: getattr(recipe, name) for name in TAKEN}
        | {"lr": base_lr(recipe), "d_model": d_model, "seed": seed, "threads": threads, "device": device}
        | {"files": [asdict(file) for file in files], "storage_dtype": storage_dtype, "scale": scale}
        | {"order": str(order_file.absolute()), "options": options or {}},
    )


def rows_files(shards: list[Shard], hook: str) -> list[RowsFile]:
    """Return where a hook's rows lie in the activation files."""
    found = []
    for shard in shards:
        with open_hdf5(shard.path, "r") as file:
            offset = file["hooks"][hook]["activations"].id.get_offset()
        found.append(RowsFile(str(shard.path.absolute()), offset, shard.n_rows))
    return found


def order_of_stream(stream: BatchStream, shards: list[Shard]) -> np.ndarray:
    """The rows of every batch of a stream, numbered through `shards`, (steps, batch_size)."""
    first = dict(zip([s.path for s in shards], np.cumsum([0, *(s.n_rows for s in shards)])[:-1].tolist(), strict=True))
    return np.array(
        [[first[path] + row for path, row in stream.where(step)] for step in range(stream.steps)], dtype=np.int64
    )


def scale_of_stream(recipe: Recipe, stream: BatchStream) -> float:
    """Return what rows are divided by in training, as the trainer computes it."""
    return normalisation_of_sae(recipe, stream).scale
