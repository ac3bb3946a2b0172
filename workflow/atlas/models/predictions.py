"""Predictions of tokens without logits: cross-entropy and KL from one product with the vocabulary.

The last step of a model that predicts tokens is linear: the logit of token v is h·W_v + b_v. So the cross-entropy of a
token t is lse(h) − h·W_t − b_t with lse the log-sum-exp over the vocabulary, and for a clean prediction p made from h_p

    KL(p ‖ q) = Σ p log p − Σ p (h_q·W_v + b_v − lse(h_q)) = lse(h_q) − h_q·m − offset,
    m = Σ p_v W_v,   offset = lse(h_p) − h_p·m.

m and offset belong to the clean model alone and are computed once; any number of edited outputs are then compared at
the price of lse(h_q), which their cross-entropy needs anyway. Nothing of size (tokens, vocabulary) is ever held.

Logits in bfloat16 are wrong by up to 0.06 nats where they are near 20. Here a number near lse is subtracted inside the
product, before it is rounded: what is rounded is log p, which is small where p is large.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from atlas.devices import product_dtype
from atlas.models.adapters import apply_head, soft_cap
from atlas.models.load import LoadedModel

# Logits of a chunk stay in a core's cache on a CPU, and fill a GPU.
_CHUNK_TOKENS = {"cpu": (512, 1024), "cuda": (4096, 8192)}
# A shift further than this from lse is replaced: rounding would grow with the distance, and exp overflows at 88.
_FAR = 8.0


def vocabulary_projection(loaded: LoadedModel) -> nn.Linear | None:
    """The linear map onto the vocabulary with which the head ends; None where logits are no linear function of it."""
    if loaded.objective not in ("causal_lm", "masked_lm"):
        return None
    if soft_cap(loaded.model) is not None:
        return None
    return loaded.model.get_output_embeddings()


@torch.inference_mode()
def features(loaded: LoadedModel, hidden: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_features"]:
    """Return what the output embeddings are applied to: the head on a final hidden state, without its last step."""
    if loaded.objective == "causal_lm":  # nothing comes before them, and what comes after may bend
        return hidden.to(loaded.dtype)
    with _passed_through(loaded.model.get_output_embeddings()):
        return apply_head(loaded.model, loaded.adapter, loaded.objective, hidden.to(loaded.dtype))


@torch.inference_mode()
def clean_predictions(
    projection: nn.Linear, clean: Float[Tensor, "rows d_features"]
) -> dict[str, Float[Tensor, "rows ..."]]:
    """Of clean features, what others are compared with, float32: `expected_row` m, `offset`, and `shift`, near lse."""
    shift = _estimate(projection, clean)
    total = torch.zeros_like(shift)
    expected = torch.zeros(clean.shape, dtype=torch.float32, device=clean.device)
    for rows, tokens, chances in _shifted_exp(projection, clean, shift):
        total[rows] += chances.sum(1)
        expected[rows] += chances @ projection.weight[tokens].float()
    expected /= total[:, None]
    log_sum_exp = shift + total.log()
    return {"expected_row": expected, "offset": log_sum_exp - (clean.float() * expected).sum(1), "shift": shift}


@torch.inference_mode()
def compare_predictions(
    projection: nn.Linear,
    other: Float[Tensor, "rows d_features"],
    targets: Int[Tensor, " rows"],
    clean: Mapping[str, Float[Tensor, "rows ..."]],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Cross-entropy of `targets`, and KL(clean ‖ other), nats, float32; `clean` is from `clean_predictions`.

    Rounding can leave a KL slightly below 0. Not finite where `other` is not.
    """
    log_sum_exp = _log_sum_exp(projection, other, clean["shift"])
    exact = other.float()
    logit = (exact * projection.weight[targets].float()).sum(1)
    if projection.bias is not None:
        logit += projection.bias[targets].float()
    return log_sum_exp - logit, log_sum_exp - (exact * clean["expected_row"]).sum(1) - clean["offset"]


def _log_sum_exp(
    projection: nn.Linear, rows: Float[Tensor, "rows d_features"], shift: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    distance = _total(projection, rows, shift).log()
    far = ~(distance.abs() < _FAR)  # NaN is far too
    if bool(far.any()):
        near = (shift + distance)[far].to(rows.dtype).float()
        lost = ~near.isfinite()  # exp overflowed, or nothing was left
        if bool(lost.any()):
            near[lost] = _estimate(projection, rows[far][lost])
        shift, distance = shift.clone(), distance.clone()
        shift[far], distance[far] = near, _total(projection, rows[far], near).log()
    return shift + distance


def _total(
    projection: nn.Linear, features: Float[Tensor, "rows d_features"], shift: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Σ exp(logit − shift) over the vocabulary."""
    total = torch.zeros_like(shift)
    for rows, _, chances in _shifted_exp(projection, features, shift):
        total[rows] += chances.sum(1)
    return total


def _estimate(projection: nn.Linear, features: Float[Tensor, "rows d_features"]) -> Float[Tensor, " rows"]:
    """Log-sum-exp from rounded logits, itself rounded to the model's number format: a shift."""
    largest = torch.full((len(features),), -torch.inf, device=features.device)
    factors = features.to(product_dtype(features.dtype, features.device))
    for rows, tokens, weight in vocabulary_chunks(projection, factors):
        bias = None if projection.bias is None else projection.bias[tokens].to(factors.dtype)
        chunk = nn.functional.linear(factors[rows], weight, bias)
        largest[rows] = torch.logaddexp(largest[rows], chunk.float().logsumexp(1))
    return largest.to(features.dtype).float()


def _shifted_exp(
    projection: nn.Linear, features: Float[Tensor, "rows d_features"], shift: Float[Tensor, " rows"]
) -> Iterator[tuple[slice, slice, Float[Tensor, "rows tokens"]]]:
    """exp(logit − shift) in chunks of rows and of the vocabulary, float32; rounded once at most, after the shift."""
    factors = features.to(product_dtype(features.dtype, features.device))
    start = -shift.to(features.dtype).to(factors.dtype)[:, None]
    for rows, tokens, weight in vocabulary_chunks(projection, factors):
        logit = torch.addmm(start[rows], factors[rows], weight.T).float()
        if projection.bias is not None:
            logit += projection.bias[tokens]
        yield rows, tokens, logit.exp_()


def vocabulary_chunks(
    projection: nn.Linear, factors: Tensor
) -> Iterator[tuple[slice, slice, Float[Tensor, "tokens d_features"]]]:
    """Slices of rows and of the vocabulary, with the latter's weights in the number format of `factors`."""
    n_rows, n_tokens = _CHUNK_TOKENS.get(factors.device.type, _CHUNK_TOKENS["cuda"])
    for token in range(0, len(projection.weight), n_tokens):
        tokens = slice(token, token + n_tokens)
        weight = projection.weight[tokens].to(factors.dtype)
        for row in range(0, len(factors), n_rows):
            yield slice(row, row + n_rows), tokens, weight


@contextmanager
def _passed_through(module: nn.Module) -> Iterator[None]:
    """Make `module` return its input."""
    kept = module.__dict__.get("forward")  # set by `widen_products`, or the class' own
    try:
        module.forward = lambda value: value
        yield
    finally:
        if kept is None:
            del module.forward
        else:
            module.forward = kept
