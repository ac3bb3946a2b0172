"""One update. The order of its parts is normative: docs/metrics.md, "Training, exactly"."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.base import Encoded, LossInputs
from atlas.training.architectures.batch_topk import adapt_threshold, smallest_kept
from atlas.training.auxk import auxiliary_loss
from atlas.training.forward import forward
from atlas.training.memory import MicroBatch, attempt
from atlas.training.optimise import apply_gradients, fused_passes, project
from atlas.training.parity import Conventions, conventions, decoder_auxiliary_loss
from atlas.training.state import Numerics, TrainingState


@dataclass(frozen=True)
class Report:
    """Numbers of one update, as tensors on the device: reading them is the caller's choice, since it waits.

    `squared_error` is that of the reconstruction from all latents; `dead` how many latents the auxiliary loss is for.
    """

    loss: Tensor
    squared_error: Tensor
    auxiliary: Tensor
    l0: Tensor
    dead: int
    gradient_norm: Tensor
    lr: float


class NotFiniteError(TrainingError):
    """A loss or gradient that is not finite; `rows` are the places in the batch of rows that are not finite either."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


def update(
    state: TrainingState,
    rows: Float[Tensor, "batch d_model"],
    recipe: Recipe,
    numerics: Numerics,
    corpora: str,
    targets: Float[Tensor, "batch d_target"] | None = None,
    micro_batch: MicroBatch | None = None,
) -> Report:
    """One update of `state`, in place, with normalised float32 rows; with `targets`, of a transcoder.

    `micro_batch` says how many of the rows pass forward and backward at once, all of them if left out; where memory
    does not suffice, it is halved and the same rows are tried again. Nothing of a failed attempt stays in `state`.

    Raises NotFiniteError, before anything of `state` changes, when the loss or its gradient is not finite; `corpora`
    says where the rows came from and is quoted in the message.
    """
    architecture, rules = ARCHITECTURES[recipe.architecture], conventions(recipe)
    micro_batch = MicroBatch(len(rows)) if micro_batch is None else micro_batch
    targets, centre = (rows, state.parameters["b_dec"]) if targets is None else (targets, torch.zeros_like(rows[0]))
    if not rules.centred:
        centre = torch.zeros_like(rows[0])
    batch = LossInputs(rows, targets, centre, state.parameters, recipe, state.step, numerics.dtype)
    while (seen := attempt(lambda: _backward(state, batch, rules, numerics, corpora, micro_batch.rows))) is None:
        micro_batch.halve(state.step, recipe)

    gradient_norm = project(state, numerics.fused)
    _check_finite(gradient_norm, "gradient", batch, corpora)
    if architecture.has_threshold and state.step > recipe.threshold_start_step:
        state.threshold = adapt_threshold(state.threshold, torch.stack(seen.smallest_kept), recipe.threshold_beta)
    state.tokens_since_fired = torch.where(seen.fired, 0, state.tokens_since_fired + len(rows))
    lr = apply_gradients(state, recipe, gradient_norm, numerics.fused)
    if architecture.restrict is not None and rules.restricts:
        architecture.restrict(state.parameters)
    loss, squared_error, auxiliary, l0 = seen.means
    return Report(loss, squared_error, auxiliary, l0, seen.dead, gradient_norm, lr)


@dataclass(frozen=True)
class _Seen:
    """Numbers of a pass over a batch: means over its rows of loss, squared error, auxiliary loss and L0.

    `smallest_kept` has the smallest kept value of each part, where a threshold follows them.
    """

    means: Float[Tensor, "4"]
    fired: Bool[Tensor, " n_latents"]
    dead: int
    smallest_kept: list[Float[Tensor, ""]]


def _backward(
    state: TrainingState, batch: LossInputs, rules: Conventions, numerics: Numerics, corpora: str, size: int
) -> _Seen:
    """Leave the gradients of the mean loss at the parameters; the rows pass in parts of `size`."""
    for parameter in state.parameters.values():
        parameter.grad = None  # of an attempt that failed
    parts = _parts(batch, size)
    fired, variance = _whole_batch(state, batch, parts, numerics, rules) if len(parts) > 1 else (None, None)
    means, ever_fired, smallest = [], torch.zeros_like(state.tokens_since_fired, dtype=torch.bool), []
    for part in parts:
        seen = _forward(part, numerics, len(batch.rows), rules)
        dead = _dead_latents(state, seen.fired if fired is None else fired, batch, rules)
        losses = _losses(part, seen, dead, rules, variance)
        _check_finite(losses[0], "loss", batch, corpora)
        share = len(part.rows) / len(batch.rows)
        seen.backward(losses[0] * share)
        means.append(torch.stack([*(loss.detach() for loss in losses), seen.n_kept / len(part.rows)]) * share)
        ever_fired |= seen.fired
        if ARCHITECTURES[batch.recipe.architecture].has_threshold:
            smallest.append(smallest_kept(seen.kept))
    return _Seen(torch.stack(means).sum(dim=0), ever_fired, len(dead), smallest)


@dataclass(frozen=True)
class _Outcome:
    """Result for a part of the batch: mean squared error of each nested reconstruction, and the residual of the last.

    `kept` holds the values of selected latents; `n_kept` counts those above 0. `backward(loss)` adds the gradients of
    `loss`, which `_losses` computed from `errors`, to the gradients of the parameters.
    """

    errors: list[Float[Tensor, ""]]
    residual: Float[Tensor, "rows d_target"]
    fired: Bool[Tensor, " n_latents"]
    kept: Float[Tensor, "..."]
    n_kept: Int[Tensor, ""]
    backward: Callable[[Tensor], None]
    encoded: Encoded | None = None


def _forward(part: LossInputs, numerics: Numerics, batch_size: int, rules: Conventions) -> _Outcome:
    if numerics.fused:
        return _fused_forward(part, batch_size, rules)
    seen = forward(part, numerics.sparse)
    residual = part.targets - seen.reconstructions[-1]
    error = residual.square().sum(dim=1).mean()
    errors = [(part.targets - nested).square().sum(dim=1).mean() for nested in seen.reconstructions[:-1]]
    kept = seen.values.detach()
    return _Outcome([*errors, error], residual, seen.fired, kept, (kept > 0).sum(), Tensor.backward, seen.encoded)


def _fused_forward(part: LossInputs, batch_size: int, rules: Conventions) -> _Outcome:
    architecture, passes = ARCHITECTURES[part.recipe.architecture], fused_passes()
    n_groups = 1 if architecture.groups is None else len(architecture.groups(part.recipe))
    divisor = math.prod(map(float, _divisors(part, n_groups, rules)))
    seen = passes.forward(part, architecture, -2 / (batch_size * n_groups * divisor))

    def backward(loss: Tensor) -> None:
        passes.add_gradients(seen, part)
        if loss.requires_grad:  # of the auxiliary loss
            loss.backward()

    errors, counts = list(seen.errors.mean(dim=0)), seen.entries.counts
    return _Outcome(errors, seen.residuals[-1], seen.fired, seen.entries.values, counts.sum(), backward)


def _parts(batch: LossInputs, size: int) -> list[LossInputs]:
    if size >= len(batch.rows):
        return [batch]
    pairs = zip(batch.rows.split(size), batch.targets.split(size), strict=True)
    return [dataclasses.replace(batch, rows=rows, targets=targets) for rows, targets in pairs]


@torch.no_grad()
def _whole_batch(
    state: TrainingState, batch: LossInputs, parts: list[LossInputs], numerics: Numerics, rules: Conventions
) -> tuple[Bool[Tensor, " n_latents"] | None, Float[Tensor, ""] | None]:
    """Return what the auxiliary loss of a part needs of all parts: which latents fired, and the variance of the
    residual.

    None where no latent could be dead, which saves this pass.
    """
    silent = state.tokens_since_fired + len(batch.rows)
    if not bool((silent >= batch.recipe.dead_feature_tokens).any()):
        return None, None
    fired, residuals = torch.zeros_like(silent, dtype=torch.bool), []
    for part in parts:
        seen = _forward(part, numerics, len(batch.rows), rules)
        fired |= seen.fired
        residuals.append(seen.residual)
    residual = torch.cat(residuals)
    return fired, (residual - residual.mean(dim=0)).square().sum(dim=1).mean()


def _dead_latents(
    state: TrainingState, fired: Bool[Tensor, " n_latents"], batch: LossInputs, rules: Conventions
) -> Int[Tensor, " dead"]:
    """The latents that are dead to the auxiliary loss of this batch."""
    before, limit = state.tokens_since_fired, batch.recipe.dead_feature_tokens
    dead = before > limit if rules.dead_before_batch else torch.where(fired, 0, before + len(batch.rows)) >= limit
    return dead.nonzero().squeeze(1)


def _losses(
    part: LossInputs, seen: _Outcome, dead: Tensor, rules: Conventions, variance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, squared error and auxiliary loss, each the mean over the rows of a part."""
    architecture, coefficient = ARCHITECTURES[part.recipe.architecture], part.recipe.aux_coefficient
    squared_error = seen.errors[-1]
    loss = torch.stack(seen.errors).mean() if len(seen.errors) > 1 else squared_error
    for divisor in _divisors(part, len(seen.errors), rules):
        loss = loss / divisor
    auxiliary = squared_error.new_zeros(())
    if architecture.revives and rules.auxiliary and coefficient > 0 and len(dead):
        auxiliary = _auxiliary_loss(part, seen.residual, dead, rules, variance)
        loss = loss + coefficient * auxiliary
    if architecture.penalty is not None:
        assert seen.encoded is not None  # `encode` made it: selected latents have no penalty
        loss = loss + architecture.penalty(seen.encoded, part)
    return loss, squared_error, auxiliary


def _divisors(part: LossInputs, n_groups: int, rules: Conventions) -> list[float | Tensor]:
    """Return what the mean error of the nested reconstructions is divided by."""
    divisors: list[float | Tensor] = [n_groups] if rules.groups_averaged_twice else []
    if rules.relative:
        divisors.append((part.targets - part.targets.mean(dim=0)).square().sum(dim=1).mean())
    return divisors


def _auxiliary_loss(
    batch: LossInputs, residual: Tensor, dead: Tensor, rules: Conventions, variance: Tensor | None
) -> Tensor:
    if rules.auxiliary == "rectified, decoder only":
        return decoder_auxiliary_loss(batch, residual, dead)
    rectify = rules.auxiliary == "rectified"
    return auxiliary_loss(batch.rows, residual, batch.parameters, dead, batch.dtype, rectify, batch.centre, variance)


def _check_finite(value: Tensor, name: str, batch: LossInputs, corpora: str) -> None:
    if bool(value.isfinite()):
        return
    whole = batch.rows.isfinite().all(dim=1) & batch.targets.isfinite().all(dim=1)
    broken = (~whole).nonzero().squeeze(1).tolist()
    if broken:
        cause = (
            f"{len(broken)} of {len(whole)} activation rows are not finite: the activation files are damaged; "
            "harvest anew"
        )
    else:
        cause = "the rows are finite, so training diverged; lower lr or lengthen warmup_steps"
    raise NotFiniteError(f"{name} is {value.item()} at step {batch.step} (rows from {corpora}): {cause}", broken)
