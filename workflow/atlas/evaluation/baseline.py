"""A random dictionary of the same shape: what a number must beat before it says anything of training."""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.sae import Sae


def random_sae(sae: Sae, mean: Float[Tensor, " d_model"], seed: int) -> Sae:
    """Random unit decoder, encoder its transpose, b_dec the data mean, no encoder bias.

    A batch_topk SAE is matched by topk with the same k: a threshold learnt for other directions means nothing here.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(sae.n_latents, sae.d_model, generator=generator)
    W_dec = torch.nn.functional.normalize(directions, dim=1).to(sae.W_dec.device)
    return Sae(
        "relu" if sae.architecture == "relu" else "topk",
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros_like(sae.b_enc),
        W_dec=W_dec,
        b_dec=mean.float().to(W_dec.device),
        k=sae.k,
    )
