"""One update. The order of its parts is normative: docs/metrics.md, "BatchTopK, exactly"."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.batch_topk import adapt_threshold
from atlas.training.auxk import auxiliary_loss
from atlas.training.initialise import unit_rows
from atlas.training.products import DecodeKept, Encode, EncodeKept, Kept, decode, pre_activations
from atlas.training.schedule import lr_at
from atlas.training.state import Numerics, TrainingState

GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Forward:
    """Reconstruction, the values that were kept (any shape; zeros are not kept), and which latents fired."""

    reconstruction: Float[Tensor, "batch d_model"]
    values: Float[Tensor, "..."]
    fired: Bool[Tensor, " n_latents"]


@dataclass(frozen=True)
class Report:
    """What one update saw, as tensors on the device: reading them is the caller's choice, since it waits."""

    loss: Tensor
    squared_error: Tensor
    auxiliary: Tensor
    l0: Tensor
    dead: int
    gradient_norm: Tensor
    lr: float


def update(
    state: TrainingState, rows: Float[Tensor, "batch d_model"], recipe: Recipe, numerics: Numerics, corpora: str
) -> Report:
    """One update of `state`, in place, with normalised float32 rows.

    Raises TrainingError, before any weight changes, when the loss or its gradient is not finite; `corpora` says where
    the rows came from and is quoted in the message.
    """
    architecture, parameters = ARCHITECTURES[recipe.architecture], state.parameters
    forward = _forward(state, rows, recipe, numerics)
    if architecture.has_threshold and state.step > recipe.threshold_start_step:
        state.threshold = adapt_threshold(state.threshold, forward.values.detach(), recipe.threshold_beta)

    residual = rows - forward.reconstruction
    squared_error = residual.square().sum(dim=1).mean()
    state.tokens_since_fired = torch.where(forward.fired, 0, state.tokens_since_fired + len(rows))
    dead = (state.tokens_since_fired >= recipe.dead_feature_tokens).nonzero().squeeze(1)
    loss, auxiliary = squared_error, squared_error.new_zeros(())
    if architecture.revives and recipe.aux_coefficient > 0 and len(dead):
        auxiliary = auxiliary_loss(rows, residual, parameters, dead, numerics.dtype, rectify=recipe.parity)
        loss = loss + recipe.aux_coefficient * auxiliary
    if architecture.penalty is not None:
        loss = loss + architecture.penalty(forward.values, len(rows), recipe, state.step)
    _check_finite(loss, "loss", state.step, rows, corpora)

    loss.backward()
    _remove_parallel_gradient(parameters["W_dec"])
    # dictionary_learning clips in every trainer but that of relu.
    limit = float("inf") if recipe.parity and recipe.architecture == "relu" else GRADIENT_CLIP
    gradient_norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit)
    _check_finite(gradient_norm, "gradient", state.step, rows, corpora)

    lr = lr_at(recipe, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.optimizer.zero_grad()
    with torch.no_grad():
        parameters["W_dec"].copy_(unit_rows(parameters["W_dec"]))
    state.step += 1
    l0 = (forward.values > 0).sum() / len(rows)
    return Report(loss.detach(), squared_error.detach(), auxiliary.detach(), l0, len(dead), gradient_norm, lr)


def _forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    return (_sparse_forward if numerics.sparse else _dense_forward)(state, rows, recipe, numerics)


def _dense_forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    p, select = state.parameters, ARCHITECTURES[recipe.architecture].select
    pre = Encode.apply(rows, p["W_enc"], p["b_enc"], p["b_dec"], numerics.dtype)
    if select is None:
        kept = pre.detach() > 0
    else:
        kept = torch.zeros_like(pre, dtype=torch.bool)
        kept.view(-1).index_fill_(0, select(pre.detach(), recipe.k), True)
    latents = torch.where(kept, pre, 0.0)
    return Forward(decode(latents, p["W_dec"], numerics.dtype) + p["b_dec"], latents, kept.any(dim=0))


def _sparse_forward(state: TrainingState, rows: Tensor, recipe: Recipe, numerics: Numerics) -> Forward:
    p, select = state.parameters, ARCHITECTURES[recipe.architecture].select
    with torch.no_grad():
        centred = rows - p["b_dec"]
        pre = pre_activations(centred, p["W_enc"], p["b_enc"], numerics.dtype)
        kept = Kept(select(pre, recipe.k), *pre.shape)
    values = EncodeKept.apply(centred, p["W_enc"], p["b_enc"], p["b_dec"], pre.view(-1)[kept.flat], kept)
    fired = torch.zeros(kept.n_latents, dtype=torch.bool, device=rows.device).index_fill_(0, kept.latents, True)
    return Forward(DecodeKept.apply(values, p["W_dec"], kept) + p["b_dec"], values, fired)


@torch.no_grad()
def _remove_parallel_gradient(W_dec: torch.nn.Parameter) -> None:
    """Take out of each decoder row's gradient what would only change its norm, which is put back to 1 anyway."""
    unit = W_dec / (W_dec.norm(dim=1, keepdim=True) + 1e-6)
    W_dec.grad -= (W_dec.grad * unit).sum(dim=1, keepdim=True) * unit


def _check_finite(value: Tensor, name: str, step: int, rows: Tensor, corpora: str) -> None:
    if bool(value.isfinite()):
        return
    broken = int((~rows.isfinite().all(dim=1)).sum())
    if broken:
        cause = (
            f"{broken} of {len(rows)} activation rows are not finite: the activation files are damaged; harvest anew"
        )
    else:
        cause = "the rows are finite, so training diverged; lower lr or lengthen warmup_steps"
    raise TrainingError(f"{name} is {value.item()} at step {step} (rows from {corpora}): {cause}")
