"""Rows of a store through an SAE, so many at a time that memory and caches suffice."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.store import Shard
from atlas.training.sae import Sae

# Float32 elements of the largest tensor of a chunk: 32 MiB, of which about ten are alive at once.
_CHUNK_ELEMENTS = 2**23
_MAX_ROWS = 8192


def chunk_rows(sae: Sae) -> int:
    """Return how many rows are encoded at a time."""
    return max(64, min(_MAX_ROWS, _CHUNK_ELEMENTS // max(sae.n_latents, sae.d_model)))


def row_chunks(shards: Sequence[Shard], size: int) -> Iterator[tuple[Shard, int, int]]:
    """Each shard with the first and behind the last of at most `size` of its rows, through all of them."""
    for shard in shards:
        for start in range(0, shard.n_rows, size):
            yield shard, start, min(start + size, shard.n_rows)


def reconstruct(sae: Sae, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_target"]:
    """Reconstruction of the inference path, float32, a chunk of rows at a time."""
    result = rows.new_empty(len(rows), sae.d_target, dtype=torch.float32)
    fill(result, rows, chunk_rows(sae), lambda chunk: sae.decode(sae.encode(chunk), chunk))
    return result


def fill(
    result: Float[Tensor, "rows values"], rows: Float[Tensor, "rows d_model"], size: int, compute: Callable
) -> None:
    """Write ``compute(chunk)`` into `result`, a chunk of `rows` at a time.

    Kept parts would lie between the freed tensors of each chunk, which the C library then cannot use again as one.
    """
    for start in range(0, len(rows), size):
        result[start : start + size] = compute(rows[start : start + size])
