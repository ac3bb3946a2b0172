"""The training loop: one for every architecture, resumable to the bit."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.progress import Progress, progress
from atlas.runcard import require_fields, write_run_card
from atlas.training.card import TRAINING_SECTIONS, training_fields
from atlas.training.checkpoint import History, Identity, read_checkpoint, write_checkpoint
from atlas.training.choice import choose
from atlas.training.curves import training_row, write_curves
from atlas.training.guards import check_inputs, named_rows, warnings_after, warnings_before
from atlas.training.identity import identity_of
from atlas.training.lock import only_process
from atlas.training.memory import MicroBatch
from atlas.training.monitor import look
from atlas.training.normalise import Normalisation, normalisation_of_sae, normalisation_of_transcoder
from atlas.training.preemption import Preempted, listen
from atlas.training.prefetch import prefetch
from atlas.training.sae import Sae, save_sae
from atlas.training.state import Choice, Numerics, TrainingState, folded_sae, new_state, set_decoder_bias
from atlas.training.streams import RowBatch, RowStream
from atlas.training.tracking import Tracked, Trackers, open_trackers
from atlas.training.transcoder import folded_transcoder
from atlas.training.update import NotFiniteError, Report, update

log = logging.getLogger(__name__)

CURVES_FILE, CARD_FILE = "training.parquet", "run_card.yaml"


@dataclass(frozen=True)
class _Run:
    """What stays the same while an SAE is trained."""

    recipe: Recipe
    stream: RowStream
    monitors: Mapping[str, Float[Tensor, "rows d_model"]]
    seed: int
    device: torch.device
    state_folder: Path
    numerics: Numerics
    choice: Choice
    normalisation: Normalisation
    identity: Identity
    monitor_targets: Mapping[str, Float[Tensor, "rows d_target"]] | None = None

    def normalised(self, batch: RowBatch) -> tuple[Tensor, Tensor | None]:
        """Rows of a batch on the device, as trained on, and a transcoder's targets."""
        rows = self.normalisation.rows(batch.rows.to(self.device))
        if self.monitor_targets is None:
            return rows, None
        return rows, self.normalisation.targets(batch.targets.to(self.device))

    def folded(self, state: TrainingState) -> Sae:
        """The SAE or transcoder for rows as stored."""
        if self.monitor_targets is None:
            return folded_sae(state, self.recipe, self.normalisation.scale)
        return folded_transcoder(state, self.recipe, self.normalisation)


def train_sae(
    recipe: Recipe,
    stream: RowStream,
    monitors: Mapping[str, Float[Tensor, "rows d_model"]],
    seed: int,
    device: torch.device,
    folder: Path,
    state_folder: Path,
    run_card: dict[str, Any],
    monitor_targets: Mapping[str, Float[Tensor, "rows d_target"]] | None = None,
    tracked: Tracked | None = None,
) -> None:
    """Train one SAE and write its weights, configuration, curves and run card to `folder`.

    `monitors` are rows that are not trained on, by role; `in_sample` is required. With `monitor_targets`, what is to be
    reconstructed from them, a transcoder is trained, and `stream` must be a PairStream. `run_card` holds the fields the
    caller knows (atlas.runcard names them); ``model.name`` and ``hook`` go into the SAE's own files. Checkpoints go
    below `state_folder`, from which a killed run goes on to the same bits; it is removed at the end. `tracked` says
    where the curves are shown meanwhile.

    `training.parquet` has one row per look and split (`train`: the batch of that step; else a monitor): step (updates
    made), tokens (rows drawn), split, explained_variance, l0, and for monitors silent_share; for `train` loss,
    squared_error, auxiliary_loss, dead_latents, lr, threshold (of normalised rows) and gradient_norm. Time is not in
    it: the same run gives the same bytes.

    Raises TrainingError for values that make the result meaningless, and Preempted after SIGTERM.
    """
    check_inputs(recipe, stream, monitors, monitor_targets, run_card)
    require_fields(Path(folder) / CARD_FILE, run_card, filled_later=TRAINING_SECTIONS)
    run = _prepare(recipe, stream, monitors, seed, device, state_folder, monitor_targets)
    with only_process(state_folder):
        _train_and_write(run, Path(folder), run_card, tracked)
        shutil.rmtree(state_folder, ignore_errors=True)


def _train_and_write(run: _Run, folder: Path, run_card: dict[str, Any], tracked: Tracked | None) -> None:
    recipe, stream = run.recipe, run.stream
    state = new_state(
        recipe, stream.d_model, run.seed, run.device, None if run.monitor_targets is None else stream.d_target
    )
    history = read_checkpoint(run.state_folder, state, run.identity, History(MicroBatch(recipe.batch_size)))
    settings = {"recipe": recipe.model_dump(mode="json"), "seed": run.seed} | run_card
    with open_trackers(tracked, run.identity.digest, settings, history.curves) as trackers:
        try:
            _train(run, state, history, trackers)
        except NotFiniteError as error:
            raise named_rows(error, stream, state.step) from error

    sae = run.folded(state)
    final = {row["split"]: row for row in history.curves if row["step"] == recipe.steps}
    warnings = warnings_before(recipe, run_card["epochs"]) + history.micro_batch.warnings(recipe)
    warnings += warnings_after(recipe, final["in_sample"])
    for warning in warnings:
        log.warning("%s", warning)
    fields = training_fields(
        run_card, recipe, stream, sae, run.numerics, run.choice, run.normalisation, history, final, run.seed, run.device
    )
    _write_outputs(folder, sae, history, fields | {"warnings": warnings})


def _prepare(
    recipe: Recipe,
    stream: RowStream,
    monitors: Mapping[str, Tensor],
    seed: int,
    device: torch.device,
    state_folder: Path,
    targets: Mapping[str, Tensor] | None,
) -> _Run:
    if targets is None:
        normalisation = normalisation_of_sae(recipe, stream)
    else:
        normalisation = normalisation_of_transcoder(recipe, stream, device)
    d_target = None if targets is None else stream.d_target
    numerics, choice = choose(recipe, stream.d_model, d_target, device, state_folder)
    identity = identity_of(recipe, stream, seed, device, numerics, normalisation, monitors, targets)
    return _Run(
        recipe, stream, monitors, seed, device, state_folder, numerics, choice, normalisation, identity, targets
    )


def _train(run: _Run, state: TrainingState, history: History, trackers: Trackers) -> None:
    """Make all updates that are left; `state` and `history` change in place."""
    recipe = run.recipe
    size = recipe.batch_size
    before = history.wall_seconds, history.stall_seconds
    started = time.monotonic()
    with (
        progress(recipe.steps * size, "train", "row") as shown,
        prefetch(run.stream, state.step, recipe.steps) as batches,
        listen() as asked_to_end,
    ):
        shown.update(state.step * size)
        while state.step < recipe.steps:
            batch = batches.next_batch()
            if len(batch.rows) != size:
                raise TrainingError(f"step {state.step}: the batch has {len(batch.rows)} rows, batch_size is {size}")
            rows, targets = run.normalised(batch)
            if state.step == 0:
                set_decoder_bias(state, rows if targets is None else targets, recipe)
            corpora = ", ".join(batch.corpora)
            report = update(state, rows, recipe, run.numerics, corpora, targets, history.micro_batch)
            if state.step % recipe.monitor_every == 0 or state.step == recipe.steps:
                seen = _look(run, state, report, rows if targets is None else targets)
                history.curves += seen
                trackers.show(seen)
                _show(shown, seen, size)
            else:
                shown.update(size)
            history.wall_seconds = before[0] + time.monotonic() - started
            history.stall_seconds = before[1] + batches.stall_seconds
            if state.step % recipe.checkpoint_every == 0 or asked_to_end.is_set():
                write_checkpoint(run.state_folder, state, history, run.identity)
            if asked_to_end.is_set() and state.step < recipe.steps:
                log.warning("asked to end at step %d of %d; run again to go on", state.step, recipe.steps)
                raise Preempted(state.step)


def _look(run: _Run, state: TrainingState, report: Report, reconstructed: Tensor) -> list[dict[str, Any]]:
    """Rows of the curves: what the last update saw, and what each monitor shows."""
    place = {"step": state.step, "tokens": state.step * run.recipe.batch_size}
    rows = [place | training_row(state, report, reconstructed)]
    sae = run.folded(state)
    for name, held_out in run.monitors.items():
        targets = None if run.monitor_targets is None else run.monitor_targets[name]
        rows.append(place | {"split": name} | vars(look(sae, held_out, targets)))
    return rows


def _show(shown: Progress, seen: list[dict[str, Any]], size: int) -> None:
    splits = {row["split"]: row for row in seen}
    train, in_sample = splits["train"], splits["in_sample"]
    values = {"explained_variance": in_sample["explained_variance"], "l0": in_sample["l0"]}
    shown.update(size, loss=train["loss"], **values, dead=train["dead_latents"])


def _write_outputs(folder: Path, sae: Sae, history: History, fields: dict[str, Any]) -> None:
    model = fields["model"]
    metadata = {"model_name": model["name"], "model_architecture": model["architecture"], "hook_name": fields["hook"]}
    target = {} if fields["target_hook"] is None else {"target_hook_name": fields["target_hook"]}
    save_sae(sae, folder, metadata | target)
    write_curves(folder / CURVES_FILE, history.curves)
    write_run_card(folder / CARD_FILE, fields)
