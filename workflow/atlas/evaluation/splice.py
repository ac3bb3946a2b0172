"""Run the model with an SAE's reconstruction in place of the activation, a transcoder's in place of its target."""

from collections.abc import Sequence

import numpy as np
import torch

from atlas.activations.store import Shard
from atlas.evaluation.chunks import reconstruct
from atlas.evaluation.losses import LossTable
from atlas.evaluation.references import References, put
from atlas.evaluation.units import Task, context_batches
from atlas.hook_points import SaeHooks
from atlas.models.forward import run_from
from atlas.models.load import LoadedModel
from atlas.progress import progress
from atlas.training.sae import Sae


@torch.inference_mode()
def splice_losses(
    loaded: LoadedModel, sae: Sae, hook: str, shards: Sequence[Shard], references: References, batch_contexts: int
) -> LossTable:
    """Losses with the reconstruction at the counted positions, beside the reference losses of the same units.

    Positions that are not counted keep their stored activation, and so does everything before the hook: only what
    follows the hook is run. A transcoder (`hook` names two) reads the stored, hence clean, rows of its first hook and
    is put in at its second, whose references these must be. Raises AtlasError when an output is not finite.
    """
    hooks = SaeHooks.parse(hook)
    losses, divergences = [], []
    with progress(references.n_contexts * shards[0].context_length, f"splice {hook}", "token") as shown:
        for batch in context_batches(shards, references.n_contexts, batch_contexts):
            task = Task.of(loaded, batch)
            rows = references.rows(hooks.source, batch).to(loaded.device)
            clean_rows = references.rows(hooks.target, batch).to(loaded.device) if hooks.is_transcoder else rows
            spliced = put(clean_rows, task.counted, reconstruct(sae, rows[task.counted]))
            clean = references.clean(batch.first, batch.n_contexts, loaded.device)
            loss, divergence = task.losses(loaded, run_from(loaded, task.inputs, hooks.target, spliced), clean)
            losses.append(loss.cpu().numpy())
            if divergence is not None:
                divergences.append(divergence.cpu().numpy())
            shown.update(batch.n_contexts * shards[0].context_length)
    mask = references.mask
    return LossTable(
        clean=references.loss_clean[mask],
        zero=references.loss_zero[mask],
        mean=references.loss_mean[mask],
        sae=np.concatenate(losses),
        kl=np.concatenate(divergences) if divergences else None,
        document=references.document[mask],
    )
