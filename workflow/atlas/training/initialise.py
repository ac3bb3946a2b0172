"""Initialise a training."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Length of the noise that tells a copy of a direction from it: a cosine of .9998 between the two.
COPY_NOISE = 0.02


def geometric_median(
    rows: Float[Tensor, "rows d_model"], max_iterations: int = 100, tolerance: float = 1e-5
) -> Float[Tensor, " d_model"]:
    """The point with the least sum of distances to the rows (Weiszfeld's iteration, from the mean).

    A row at distance 0 from the current point would get infinite weight; its distance is taken as the smallest
    positive float32 square root instead, which keeps the point there. Source of the iteration and its limits:
    dictionary_learning, `geometric_median`, which yields NaN on duplicate rows.
    """
    smallest = math.sqrt(torch.finfo(torch.float32).tiny)
    point = rows.mean(dim=0)
    for _ in range(max_iterations):
        previous = point
        weights = 1 / (rows - point).norm(dim=1).clamp_min(smallest)
        weights = weights / weights.sum()
        point = weights @ rows
        if (point - previous).norm() < tolerance:
            break
    return point


def initial_weights(d_model: int, n_latents: int, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """Random unit decoder rows, the encoder their transpose, biases 0; a function of the arguments alone.

    Drawn on the CPU whatever the training device, as ``torch.nn.Linear(n_latents, d_model)`` draws, so that the same
    seed starts from the same dictionary as dictionary_learning's trainers do. In memory a latent's encoder weights are
    neighbours, as its decoder weights are: gradients come per latent, and are used without being transposed.
    """
    W_dec = _directions(d_model, n_latents, torch.Generator().manual_seed(seed))
    return _weights(W_dec.clone(), W_dec)


def copied_weights(d_model: int, n_latents: int, copies: int, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """`initial_weights` with the last `copies` latents replaced by the first ones, noise of `COPY_NOISE` added.

    An identical copy would stay one for ever, for both would get the same gradient; so training may part them.
    """
    generator = torch.Generator().manual_seed(seed)
    W_dec = _directions(d_model, n_latents, generator)
    noise = unit_rows(torch.randn(copies, d_model, generator=generator))
    W_dec[n_latents - copies :] = unit_rows(W_dec[:copies] + COPY_NOISE * noise)
    return _weights(W_dec.clone(), W_dec)


def encoder_as_drawn(d_model: int, n_latents: int, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """The start of sparsify: the encoder as ``torch.nn.Linear(d_model, n_latents)`` draws it, the decoder its rows."""
    rows = torch.empty(n_latents, d_model)
    torch.nn.init.kaiming_uniform_(rows, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed))
    return _weights(rows, unit_rows(rows))


def initial_transcoder(d_model: int, d_target: int, n_latents: int, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """The same with encoder columns of their own, random and of unit norm: input and target are different spaces."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = _directions(d_target, n_latents, generator)
    return _weights(_directions(d_model, n_latents, generator), W_dec)


def _directions(width: int, n_latents: int, generator: torch.Generator) -> Float[Tensor, "n_latents width"]:
    columns = torch.empty(width, n_latents)
    torch.nn.init.kaiming_uniform_(columns, a=math.sqrt(5), generator=generator)
    return unit_rows(columns.T.contiguous())


def _weights(encoder: Float[Tensor, "n_latents d_model"], W_dec: Tensor) -> dict[str, Float[Tensor, "..."]]:
    n_latents, d_target = W_dec.shape
    return {"W_enc": encoder.T, "b_enc": torch.zeros(n_latents), "W_dec": W_dec, "b_dec": torch.zeros(d_target)}


def unit_rows(W_dec: Float[Tensor, "n_latents d_model"]) -> Float[Tensor, "n_latents d_model"]:
    """Rows scaled to unit norm; a row of zeros stays one."""
    return W_dec / row_norms(W_dec)


def row_norms(W_dec: Float[Tensor, "n_latents d_model"]) -> Float[Tensor, "n_latents 1"]:
    """Norms of the rows, of which none is 0, to divide by."""
    return W_dec.norm(dim=1, keepdim=True) + torch.finfo(W_dec.dtype).eps
