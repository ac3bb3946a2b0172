"""Looks at rows that are not trained on. Nothing here changes the state or draws a random number."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.architectures import ARCHITECTURES
from atlas.training.sae import Sae

_CHUNK = 2048


@dataclass(frozen=True)
class Look:
    """Measures over one set of rows: `silent_share` is the share of latents that fire on none of them."""

    explained_variance: float
    l0: float
    silent_share: float


@torch.no_grad()
def look(sae: Sae, rows: Float[Tensor, "rows d_model"], targets: Float[Tensor, "rows d_target"] | None = None) -> Look:
    """Measure the inference path on rows in the store's scale; `targets` are what a transcoder reconstructs, x below.

    ``explained_variance = 1 - sum |e|^2 / sum |x - mean|^2`` over all rows, sums in float64. A batch_topk SAE whose
    threshold is not set has no inference path yet; the selection of training stands in for it, over these rows.
    """
    targets = rows if targets is None else targets
    mean = targets.double().mean(dim=0)
    error = variance = fired_count = torch.zeros((), dtype=torch.float64)
    fired = torch.zeros(sae.n_latents, dtype=torch.bool)
    for chunk, target in zip(rows.split(_CHUNK), targets.split(_CHUNK), strict=True):
        latents = _latents(sae, chunk.to(sae.W_enc.device).float())
        target = target.to(sae.W_enc.device).float()
        error = error + (target - sae.decode(latents)).double().square().sum().cpu()
        variance = variance + (target.double().cpu() - mean).square().sum()
        fired_count = fired_count + (latents > 0).sum().cpu()
        fired |= (latents > 0).any(dim=0).cpu()
    return Look(
        explained_variance=1 - (error / variance).item(),
        l0=fired_count.item() / len(rows),
        silent_share=1 - fired.double().mean().item(),
    )


def _latents(sae: Sae, rows: Tensor) -> Tensor:
    architecture = ARCHITECTURES[sae.architecture]
    if not architecture.has_threshold or sae.threshold is not None:
        return sae.encode(rows)
    pre = sae.pre_activations(rows)
    kept = torch.zeros_like(pre, dtype=torch.bool)
    assert architecture.select is not None and sae.k is not None  # all that have a threshold are of this kind
    kept.view(-1)[architecture.select(pre, sae.k)] = True
    return torch.where(kept, pre, 0.0)
