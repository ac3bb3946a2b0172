"""One update. The order of its parts is normative: docs/metrics.md, "Training, exactly"."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.base import Batch
from atlas.training.architectures.batch_topk import adapt_threshold
from atlas.training.auxk import auxiliary_loss
from atlas.training.forward import Forward, forward
from atlas.training.optimise import apply_gradients, project
from atlas.training.parity import Conventions, conventions, decoder_auxiliary_loss
from atlas.training.state import Numerics, TrainingState


@dataclass(frozen=True)
class Report:
    """What one update saw, as tensors on the device: reading them is the caller's choice, since it waits.

    `squared_error` is that of the reconstruction from all latents; `dead` how many latents the auxiliary loss is for.
    """

    loss: Tensor
    squared_error: Tensor
    auxiliary: Tensor
    l0: Tensor
    dead: int
    gradient_norm: Tensor
    lr: float


def update(
    state: TrainingState,
    rows: Float[Tensor, "batch d_model"],
    recipe: Recipe,
    numerics: Numerics,
    corpora: str,
    targets: Float[Tensor, "batch d_target"] | None = None,
) -> Report:
    """One update of `state`, in place, with normalised float32 rows; with `targets`, of a transcoder.

    Raises TrainingError, before any weight changes, when the loss or its gradient is not finite; `corpora` says where
    the rows came from and is quoted in the message.
    """
    architecture, rules = ARCHITECTURES[recipe.architecture], conventions(recipe)
    targets, centre = (rows, state.parameters["b_dec"]) if targets is None else (targets, torch.zeros_like(rows[0]))
    if not rules.centred:
        centre = torch.zeros_like(rows[0])
    batch = Batch(rows, targets, centre, state.parameters, recipe, state.step, numerics.dtype)
    seen = forward(batch, numerics.sparse)
    if architecture.has_threshold and state.step > recipe.threshold_start_step:
        state.threshold = adapt_threshold(state.threshold, seen.values.detach(), recipe.threshold_beta)
    dead = _count_firings(state, seen, batch, rules)

    residual = targets - seen.reconstructions[-1]
    squared_error = residual.square().sum(dim=1).mean()
    loss = _reconstruction_loss(squared_error, seen, batch, rules)
    auxiliary = squared_error.new_zeros(())
    if architecture.revives and rules.auxiliary and recipe.aux_coefficient > 0 and len(dead):
        auxiliary = _auxiliary_loss(batch, residual, dead, rules)
        loss = loss + recipe.aux_coefficient * auxiliary
    if architecture.penalty is not None:
        loss = loss + architecture.penalty(seen.encoded, batch)
    _check_finite(loss, "loss", state.step, batch, corpora)

    loss.backward()
    gradient_norm = project(state)
    _check_finite(gradient_norm, "gradient", state.step, batch, corpora)
    lr = apply_gradients(state, recipe, gradient_norm)
    if architecture.restrict is not None and rules.restricts:
        architecture.restrict(state.parameters)
    l0 = (seen.values > 0).sum() / len(rows)
    return Report(loss.detach(), squared_error.detach(), auxiliary.detach(), l0, len(dead), gradient_norm, lr)


def _count_firings(state: TrainingState, seen: Forward, batch: Batch, rules: Conventions) -> Int[Tensor, " dead"]:
    """Bring the counters up to date; returns the latents that are dead to the auxiliary loss."""
    before, limit = state.tokens_since_fired, batch.recipe.dead_feature_tokens
    state.tokens_since_fired = torch.where(seen.fired, 0, before + len(batch.rows))
    dead = before > limit if rules.dead_before_batch else state.tokens_since_fired >= limit
    return dead.nonzero().squeeze(1)


def _auxiliary_loss(batch: Batch, residual: Tensor, dead: Tensor, rules: Conventions) -> Tensor:
    if rules.auxiliary == "rectified, decoder only":
        return decoder_auxiliary_loss(batch, residual, dead)
    rectify = rules.auxiliary == "rectified"
    return auxiliary_loss(batch.rows, residual, batch.parameters, dead, batch.dtype, rectify, batch.centre)


def _reconstruction_loss(squared_error: Tensor, seen: Forward, batch: Batch, rules: Conventions) -> Tensor:
    """The mean error of the nested reconstructions; without groups, of the only one."""
    earlier = [(batch.targets - part).square().sum(dim=1).mean() for part in seen.reconstructions[:-1]]
    loss = torch.stack([*earlier, squared_error]).mean() if earlier else squared_error
    if rules.groups_averaged_twice:
        loss = loss / len(seen.reconstructions)
    if rules.relative:
        loss = loss / (batch.targets - batch.targets.mean(dim=0)).square().sum(dim=1).mean()
    return loss


def _check_finite(value: Tensor, name: str, step: int, batch: Batch, corpora: str) -> None:
    if bool(value.isfinite()):
        return
    whole = batch.rows.isfinite().all(dim=1) & batch.targets.isfinite().all(dim=1)
    broken = int((~whole).sum())
    if broken:
        cause = (
            f"{broken} of {len(whole)} activation rows are not finite: the activation files are damaged; harvest anew"
        )
    else:
        cause = "the rows are finite, so training diverged; lower lr or lengthen warmup_steps"
    raise TrainingError(f"{name} is {value.item()} at step {step} (rows from {corpora}): {cause}")
