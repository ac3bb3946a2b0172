"""Run the model with an SAE's reconstruction in place of the activation, a transcoder's in place of its target."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from atlas.activations.store import Shard
from atlas.evaluation.chunks import reconstruct
from atlas.evaluation.facts import TrainingFacts, regular_mean
from atlas.evaluation.losses import LossTable, RegularLosses
from atlas.evaluation.references import Ablated, References, put
from atlas.evaluation.units import ContextBatch, Task, context_batches
from atlas.hook_points import SaeHooks
from atlas.models.forward import run_from
from atlas.models.load import LoadedModel
from atlas.progress import progress
from atlas.training.sae import Sae


@torch.inference_mode()
def splice_losses(
    loaded: LoadedModel,
    sae: Sae,
    hook: str,
    shards: Sequence[Shard],
    references: References,
    batch_contexts: int,
    training: TrainingFacts | None = None,
) -> LossTable:
    """Losses with the reconstruction at the counted positions, beside the reference losses of the same units.

    Positions that are not counted keep their stored activation, and so does everything before the hook: only what
    follows the hook is run. A transcoder (`hook` names two) reads the stored, hence clean, rows of its first hook and
    is put in at its second, whose references these must be. With `training`, which says what a massive activation is,
    losses are also computed with those rows left as they are. Raises AtlasError when an output is not finite.
    """
    hooks = SaeHooks.parse(hook)
    spliced, regular = _Losses(), _Losses()
    n_massive = n_rows = 0
    with progress(references.n_contexts * shards[0].context_length, f"splice {hook}", "token") as shown:
        for batch in context_batches(shards, references.n_contexts, batch_contexts):
            task, rows, clean_rows = _inputs(loaded, hooks, references, batch)
            clean = references.clean(batch.first, batch.n_contexts, loaded.device)
            edited = put(clean_rows, task.counted, reconstruct(sae, rows[task.counted]))
            found = task.losses(loaded, run_from(loaded, task.inputs, hooks.target, edited), clean)
            spliced.add(found)
            if training is not None:
                massive = task.counted & training.massive(hooks, rows, clean_rows)
                n_massive, n_rows = n_massive + int(massive.sum()), n_rows + int(task.counted.sum())
                if bool(massive.any()):
                    edited[massive] = clean_rows[massive]
                    found = task.losses(loaded, run_from(loaded, task.inputs, hooks.target, edited), clean)
                regular.add(found)
            shown.update(batch.n_contexts * shards[0].context_length)
    mask = references.mask
    loss_mean = references.loss_mean[mask]
    without_massive = None
    if training is not None:
        mean = _mean_losses(loaded, hooks, shards, references, batch_contexts, training) if n_massive else loss_mean
        without_massive = RegularLosses(regular.loss, mean, regular.divergence, n_massive, n_rows)
    return LossTable(
        clean=references.loss_clean[mask],
        zero=references.loss_zero[mask],
        mean=loss_mean,
        sae=spliced.loss,
        kl=spliced.divergence,
        document=references.document[mask],
        regular=without_massive,
    )


class _Losses:
    """Losses and divergences of batches, in order."""

    def __init__(self):
        self._losses: list[np.ndarray] = []
        self._divergences: list[np.ndarray] = []

    def add(self, found: tuple[Tensor, Tensor | None]) -> None:
        loss, divergence = found
        self._losses.append(loss.cpu().numpy())
        if divergence is not None:
            self._divergences.append(divergence.cpu().numpy())

    @property
    def loss(self) -> np.ndarray:
        return np.concatenate(self._losses)

    @property
    def divergence(self) -> np.ndarray | None:
        return np.concatenate(self._divergences) if self._divergences else None


def _inputs(
    loaded: LoadedModel, hooks: SaeHooks, references: References, batch: ContextBatch
) -> tuple[Task, Tensor, Tensor]:
    """Return what the model is asked, the rows that the SAE reads, and those that it replaces."""
    rows = references.rows(hooks.source, batch).to(loaded.device)
    clean_rows = references.rows(hooks.target, batch).to(loaded.device) if hooks.is_transcoder else rows
    return Task.of(loaded, batch), rows, clean_rows


def _mean_losses(
    loaded: LoadedModel,
    hooks: SaeHooks,
    shards: Sequence[Shard],
    references: References,
    batch_contexts: int,
    training: TrainingFacts,
) -> np.ndarray:
    """Losses with the mean of the corpus' regular rows at the counted positions that are no massive activations."""
    ablated = Ablated(loaded, {hooks.target: regular_mean(shards, hooks.target).float().to(loaded.device)})
    losses = _Losses()
    for batch in context_batches(shards, references.n_contexts, batch_contexts):
        task, rows, clean_rows = _inputs(loaded, hooks, references, batch)
        edited = dataclasses.replace(task, counted=task.counted & ~training.massive(hooks, rows, clean_rows))
        hidden = ablated.hidden(edited, hooks.target, "mean", clean_rows)
        losses.add(task.losses(loaded, hidden, references.clean(batch.first, batch.n_contexts, loaded.device)))
    return losses.loss
