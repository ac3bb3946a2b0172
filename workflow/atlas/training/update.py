"""One update. The order of its parts is normative: docs/metrics.md, "BatchTopK, exactly"."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.batch_topk import adapt_threshold
from atlas.training.auxk import auxiliary_loss
from atlas.training.forward import forward
from atlas.training.optimise import apply_gradients, project_and_clip
from atlas.training.state import Numerics, TrainingState


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
    seen = forward(state, rows, recipe, numerics)
    if architecture.has_threshold and state.step > recipe.threshold_start_step:
        state.threshold = adapt_threshold(state.threshold, seen.values.detach(), recipe.threshold_beta)

    residual = rows - seen.reconstruction
    squared_error = residual.square().sum(dim=1).mean()
    state.tokens_since_fired = torch.where(seen.fired, 0, state.tokens_since_fired + len(rows))
    dead = (state.tokens_since_fired >= recipe.dead_feature_tokens).nonzero().squeeze(1)
    loss, auxiliary = squared_error, squared_error.new_zeros(())
    if architecture.revives and recipe.aux_coefficient > 0 and len(dead):
        auxiliary = auxiliary_loss(rows, residual, parameters, dead, numerics.dtype, rectify=recipe.parity)
        loss = loss + recipe.aux_coefficient * auxiliary
    if architecture.penalty is not None:
        loss = loss + architecture.penalty(seen.values, len(rows), recipe, state.step)
    _check_finite(loss, "loss", state.step, rows, corpora)

    loss.backward()
    gradient_norm = project_and_clip(state, recipe)
    _check_finite(gradient_norm, "gradient", state.step, rows, corpora)
    lr = apply_gradients(state, recipe)
    l0 = (seen.values > 0).sum() / len(rows)
    return Report(loss.detach(), squared_error.detach(), auxiliary.detach(), l0, len(dead), gradient_norm, lr)


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
