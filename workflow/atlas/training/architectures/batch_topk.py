"""BatchTopK: training keeps the k x batch largest of the batch, inference those above a threshold (arXiv 2412.06410).

The threshold is the running mean of the smallest kept value, so that a row is encoded by itself at inference.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.architectures.base import Architecture, Latents
from atlas.training.selection import select_batch


def activate_above_threshold(pre: Latents, sae) -> Latents:
    """Pre-activations above the SAE's one threshold."""
    return torch.where(pre > sae.threshold, pre, 0.0)


def adapt_threshold(threshold: Float[Tensor, ""], kept: Float[Tensor, "..."], beta: float) -> Float[Tensor, ""]:
    """The threshold after a batch whose kept values are `kept` (zeros are not kept).

    The first time it becomes the smallest kept value; later it moves towards it with memory `beta`. A batch that
    keeps nothing counts as 0. Source: dictionary_learning, batch_top_k.py, `update_threshold`.
    """
    smallest = smallest_kept(kept)
    smallest = torch.where(smallest.isinf(), 0.0, smallest)
    return torch.where(threshold < 0, smallest, beta * threshold + (1 - beta) * smallest)


def smallest_kept(kept: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The smallest of the values that are kept, infinity if none is; zeros are not kept."""
    return torch.where(kept > 0, kept, torch.inf).min() if kept.numel() else kept.new_tensor(torch.inf)


BATCH_TOPK = Architecture(
    name="batch_topk",
    saelens="jumprelu",
    saelens_transcoder="jumprelu_transcoder",
    activate=activate_above_threshold,
    select=select_batch,
    has_threshold=True,
)
