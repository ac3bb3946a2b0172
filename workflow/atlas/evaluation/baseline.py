"""A random dictionary of the same shape: what a number must beat before it says anything of training."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.training.sae import Sae


def random_sae(sae: Sae, mean: Float[Tensor, " d_model"], seed: int) -> Sae:
    """Random unit decoder, encoder its transpose, b_dec the data mean, no encoder bias.

    An SAE with a target L0 is matched by topk with the same k, for a threshold learnt for other directions means
    nothing here; one without, by relu.
    """
    W_dec = random_decoder(sae, seed)
    return Sae(
        "relu" if sae.k is None else "topk",
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros_like(sae.b_enc),
        W_dec=W_dec,
        b_dec=mean.float().to(W_dec.device),
        k=sae.k,
    )


def random_decoder(sae: Sae, seed: int) -> Float[Tensor, "n_latents d_target"]:
    """The decoder of the random dictionary beside an SAE: its shape and the seed alone decide."""
    return _directions(sae.n_latents, sae.d_target, seed).to(sae.W_dec.device)


def random_transcoder(
    sae: Sae,
    source_mean: Float[Tensor, " d_model"],
    target_mean: Float[Tensor, " d_target"],
    gain: float,
    seed: int,
) -> Sae:
    """The same for a transcoder: its encoder directions are drawn too, for there is no decoder to take them from.

    Random unit encoder columns read the rows relative to their mean; a latent is `gain` times what it reads. With the
    ratio of the targets' norms to the rows' as gain, what is added to the mean has the size of a target.
    """
    W_enc = gain * _directions(sae.n_latents, sae.d_model, seed + 2**31).T.contiguous().to(sae.W_dec.device)
    b_enc = -(source_mean.float().to(W_enc.device) @ W_enc)
    return dataclasses.replace(random_sae(sae, target_mean, seed), W_enc=W_enc, b_enc=b_enc, is_transcoder=True)


def _directions(n_latents: int, width: int, seed: int) -> Float[Tensor, "n_latents width"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n_latents, width, generator=generator), dim=1)
