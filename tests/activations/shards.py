"""Small activation files with known content."""

from pathlib import Path

import numpy as np
import torch

from atlas.activations.writer import RowColumns, ShardWriter
from atlas.files import atomic_path

HOOKS = {"resid_post.0": 16, "resid_post.1": 24}


def identity(**changes) -> dict:
    return {
        "model": "tiny",
        "revision": "r",
        "weights_sha256": "w",
        "tokenizer_sha256": "t",
        "corpus": "chat",
        "corpus_fingerprint": "f",
        "split": "train",
        "shard": 0,
        "n_shards": 1,
        "context_length": 32,
        "batch_contexts": 4,
        "storage_dtype": "bfloat16",
        "shuffle_seed": 7,
        "versions": "{}",
    } | changes


def make_shard(
    path: Path, n_contexts: int = 80, seed: int = 0, documents: np.ndarray | None = None, hooks=HOOKS, **changes
) -> dict[str, torch.Tensor]:
    """Write a shard of random rows (every 16th position massive, position 31 not counted); returns them.

    `documents` are the document numbers of the rows; if not given, neighbours are of one document.
    """
    attributes = identity(**changes)
    length, generator = attributes["context_length"], torch.Generator().manual_seed(seed)
    n_rows = n_contexts * length
    position = np.tile(np.arange(length, dtype=np.uint32), n_contexts)
    if attributes["split"] == "train":
        position = position[np.random.Generator(np.random.PCG64(attributes["shuffle_seed"])).permutation(n_rows)]
    else:
        attributes["shuffle_seed"] = -1
    documents = np.repeat(np.arange(n_contexts), length) if documents is None else documents
    columns = RowColumns(np.arange(n_rows), documents, position, position != length - 1)
    dtype = getattr(torch, attributes["storage_dtype"])
    rows = {name: torch.randn(n_rows, width, generator=generator).to(dtype) for name, width in hooks.items()}
    for value in rows.values():
        value[torch.from_numpy(position % 16 == 0)] *= 100
    with atomic_path(path) as temporary:
        writer = ShardWriter(temporary, columns, hooks, attributes["storage_dtype"])
        for name, value in rows.items():
            for places in np.array_split(np.random.default_rng(1).permutation(n_rows), 5):
                writer.write(name, places, value[torch.from_numpy(places)])
        writer.finish(attributes)
    return rows
