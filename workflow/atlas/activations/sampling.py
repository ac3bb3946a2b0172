"""Take the median norm and the fixed samples for monitoring from stored rows, once."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.blocks import eligible_rows
from atlas.activations.store import Shard


def median_norm(shards: list[Shard], hook: str) -> float:
    """Median norm of the counted rows of a hook: the scale that massive activations are measured against."""
    return float(np.median(np.concatenate([shard.norms(hook)[shard.counted] for shard in shards])))


def sample_rows(
    shards: list[Shard], hook: str, n_rows: int, limit: float, seed: int = 0
) -> Float[Tensor, "rows d_model"]:
    """A fixed sample of counted rows with norms up to `limit`, for monitoring; all of them where there are fewer."""
    return sample_tokens(shards, {hook: limit}, n_rows, seed)[hook]


def sample_tokens(
    shards: list[Shard], limits: Mapping[str, float], n_rows: int, seed: int = 0
) -> dict[str, Float[Tensor, "rows d_model"]]:
    """The same for several hooks: rows of the same tokens, within the limit of each hook."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = {hook: [] for hook in limits}
    for shard in shards:
        chosen = np.sort(generator.permutation(eligible_rows(shard, limits))[: -(-n_rows // len(shards))])
        for hook, parts in rows.items():
            parts += [shard.read_rows(hook, int(row), int(row) + 1) for row in chosen]
    return {hook: torch.cat(parts) for hook, parts in rows.items()}
