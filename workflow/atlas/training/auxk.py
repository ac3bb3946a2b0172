"""The auxiliary loss that revives dead latents (arXiv 2406.04093, appendix A.2)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.training.products import Encode, decode
from atlas.training.selection import top_indices


def auxiliary_loss(
    rows: Float[Tensor, "batch d_model"],
    residual: Float[Tensor, "batch d_target"],
    parameters: Mapping[str, Tensor],
    dead: Int[Tensor, " dead"],
    dtype: torch.dtype,
    rectify: bool,
    centre: Float[Tensor, " d_model"] | None = None,
    variance: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Squared error of the residual as the dead latents alone reconstruct it, over the residual's variance.

    Each row uses its min(d_target / 2, dead) largest pre-activations among the dead latents; `residual` is a constant.
    The encoder subtracts `centre`, b_dec if left out; `variance` is given where the rows are part of a batch.
    By default pre-activations are taken as they are. With `rectify` (the reference's behaviour) they pass a ReLU first,
    and then a latent that is negative on every row of the batch gets no gradient and is never revived.
    """
    residual = residual.detach()
    pre = Encode.apply(
        rows,
        parameters["W_enc"].index_select(1, dead),
        parameters["b_enc"].index_select(0, dead),
        parameters["b_dec"] if centre is None else centre,
        dtype,
    )
    if rectify:
        pre = torch.relu(pre)
    k_aux = min(max(1, residual.shape[1] // 2), len(dead))
    if k_aux < len(dead):
        chosen = torch.zeros_like(pre, dtype=torch.bool).scatter_(1, top_indices(pre.detach(), k_aux), True)
        pre = torch.where(chosen, pre, 0.0)
    reconstruction = decode(pre, parameters["W_dec"].index_select(0, dead), dtype)
    if variance is None:
        variance = (residual - residual.mean(dim=0)).square().sum(dim=1).mean()
    # A residual without variance (a batch of equal rows) leaves nothing to learn from.
    return (residual - reconstruction).square().sum(dim=1).mean() / variance if variance > 0 else residual.new_zeros(())
