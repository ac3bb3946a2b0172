"""Count latents that stay silent on few, more and all tokens of the training text."""

from collections.abc import Sequence

import numpy as np
import torch

from atlas.activations.store import Shard
from atlas.errors import EvaluationError
from atlas.evaluation.chunks import chunk_rows, row_chunks
from atlas.evaluation.sparsity import FiringSums
from atlas.progress import progress
from atlas.training.sae import Sae

_SEED = 0


@torch.inference_mode()
def firings_on(sae: Sae, shards: Sequence[Shard], hook: str, token_counts: Sequence[int]) -> list[FiringSums]:
    """Firings on random counted rows of `hook`, as many as each of `token_counts` says, and on all of them.

    The rows of a count are among those of every larger one. Rows are drawn over the whole text: its first tokens are
    few documents. Raises EvaluationError when there are not more rows than the largest count.
    """
    device = sae.W_dec.device
    total = sum(int(shard.counted.sum()) for shard in shards)
    if token_counts and token_counts[-1] >= total:
        raise EvaluationError(
            f"{shards[0].path.parent}: regimes.token_counts asks for {token_counts[-1]:,} training tokens, there are "
            f"{total:,}; lower it, or raise harvest.train_tokens"
        )
    place = np.random.Generator(np.random.PCG64(_SEED)).permutation(total)
    counts = [*token_counts, total]
    sums = [FiringSums.start(sae.n_latents, device) for _ in counts]
    first = 0
    with progress(total, f"silent latents at {hook}", "row") as shown:
        for shard, start, stop in row_chunks(shards, chunk_rows(sae)):
            rows = shard.read_rows(hook, start, stop)[torch.from_numpy(shard.counted[start:stop])]
            fired = sae.encode(rows.to(device)) > 0
            drawn = torch.from_numpy(place[first : first + len(fired)]).to(device)
            for number, each in zip(counts, sums, strict=True):
                mine = fired[drawn < number]
                each.update(mine, torch.zeros(len(mine), dtype=torch.bool, device=device))
            first += len(fired)
            shown.update(len(fired))
    return sums
