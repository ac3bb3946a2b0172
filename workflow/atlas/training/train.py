"""The training loop: one for every architecture, resumable to the bit."""

import dataclasses
import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast

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
from atlas.training.streams import PairBatch, PairStream, RowBatch, RowStream
from atlas.training.tracking import Tracked, Trackers, open_trackers
from atlas.training.transcoder import folded_transcoder
from atlas.training.update import NotFiniteError, Report, update

log = logging.getLogger(__name__)

CURVES_FILE, CARD_FILE = "training.parquet", "run_card.yaml"


@dataclass(frozen=True)
class _Run:
    """Input that stays the same while an SAE is trained."""

    recipe: Recipe
    stream: RowStream
    monitors: Mapping[str, Float[Tensor, "_ d_model"]]
    seed: int
    device: torch.device
    state_folder: Path
    numerics: Numerics
    choice: Choice
    normalisation: Normalisation
    identity: Identity
    monitor_targets: Mapping[str, Float[Tensor, "_ d_target"]] | None = None

    def normalised(self, batch: RowBatch) -> tuple[Tensor, Tensor | None]:
        """Rows of a batch on the device, as trained on, and a transcoder's targets."""
        rows = self.normalisation.rows(batch.rows.to(self.device))
        if self.monitor_targets is None:
            return rows, None
        return rows, self.normalisation.targets(cast(PairBatch, batch).targets.to(self.device))

    def folded(self, state: TrainingState) -> Sae:
        """The SAE or transcoder for rows as stored."""
        if self.monitor_targets is None:
            return folded_sae(state, self.recipe, self.normalisation.scale)
        return folded_transcoder(state, self.recipe, self.normalisation)


def train_sae(
    recipe: Recipe,
    stream: RowStream,
    monitors: Mapping[str, Float[Tensor, "_ d_model"]],
    seed: int,
    device: torch.device,
    folder: Path,
    state_folder: Path,
    run_card: dict[str, Any],
    monitor_targets: Mapping[str, Float[Tensor, "_ d_target"]] | None = None,
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
    with only_process(state_folder):
        training = Training(
            recipe, stream, monitors, seed, device, folder, state_folder, run_card, monitor_targets, tracked
        )
        with training.running(), listen() as asked_to_end:
            training.advance(recipe.steps, asked_to_end)
            training.publish()
        shutil.rmtree(state_folder, ignore_errors=True)


class Training:
    """One SAE in training: begun or taken up where it was left, brought forward in parts, published when it is done.

    Arguments are those of `train_sae`; `filled_later` are sections of the run card that `publish` is given. The caller
    holds the lock of `state_folder`, and removes it at the end. Raises TrainingError when rows, monitors and run card
    do not belong together.
    """

    def __init__(
        self,
        recipe: Recipe,
        stream: RowStream,
        monitors: Mapping[str, Float[Tensor, "_ d_model"]],
        seed: int,
        device: torch.device,
        folder: Path,
        state_folder: Path,
        run_card: dict[str, Any],
        monitor_targets: Mapping[str, Float[Tensor, "_ d_target"]] | None = None,
        tracked: Tracked | None = None,
        label: str = "train",
        filled_later: Collection[str] = (),
    ):
        check_inputs(recipe, stream, monitors, monitor_targets, run_card)
        self.recipe, self.stream, self.folder = recipe, stream, Path(folder)
        self._card, self._tracked, self._label = run_card, tracked, label
        require_fields(self.folder / CARD_FILE, run_card, filled_later={*TRAINING_SECTIONS, *filled_later})
        self._run = _prepare(recipe, stream, monitors, seed, device, state_folder, monitor_targets)
        self._state = new_state(
            recipe, stream.d_model, seed, device, None if monitor_targets is None else cast(PairStream, stream).d_target
        )
        self._history = read_checkpoint(
            state_folder, self._state, self._run.identity, History(MicroBatch(recipe.batch_size))
        )
        self._saved = self._state.step if self._history.resumed_from else None
        self._trackers: Trackers | None = None

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._state.step

    @property
    def account(self) -> dict[str, Any]:
        """Return what its checkpoint says of windows that are gone: see `BatchStream.account`."""
        return self._history.account

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the curves to its trackers inside the block."""
        settings = {"recipe": self.recipe.model_dump(mode="json"), "seed": self._run.seed} | self._card
        with open_trackers(self._tracked, self._run.identity.digest, settings, self._history.curves) as self._trackers:
            yield

    def advance(self, until: int, asked_to_end: Event) -> None:
        """Make the updates before step `until`; raises Preempted, after a checkpoint, when asked to end."""
        try:
            self._advance(until, asked_to_end)
        except NotFiniteError as error:
            raise named_rows(error, self.stream, self._state.step) from error

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this step."""
        if self._saved == self._state.step:
            return
        account = getattr(self.stream, "account", None)
        self._history.account = {} if account is None else dataclasses.asdict(account)
        write_checkpoint(self._run.state_folder, self._state, self._history, self._run.identity)
        self._saved = self._state.step

    def publish(self, known: Mapping[str, Any] | None = None) -> None:
        """Write weights, configuration, curves and run card; `known` are fields that take the place of the caller's."""
        run, history, recipe = self._run, self._history, self.recipe
        card = self._card | dict(known or {})
        sae = run.folded(self._state)
        final = {row["split"]: row for row in history.curves if row["step"] == recipe.steps}
        warnings = warnings_before(recipe, card["epochs"]) + history.micro_batch.warnings(recipe)
        warnings += warnings_after(recipe, final["in_sample"])
        for warning in warnings:
            log.warning("%s", warning)
        fields = training_fields(
            card,
            recipe,
            self.stream,
            sae,
            run.numerics,
            run.choice,
            run.normalisation,
            history,
            final,
            run.seed,
            run.device,
        )
        _write_outputs(self.folder, sae, history, fields | {"warnings": warnings})

    def _advance(self, until: int, asked_to_end: Event) -> None:
        run, state, history, recipe = self._run, self._state, self._history, self.recipe
        size = recipe.batch_size
        before = history.wall_seconds, history.stall_seconds
        started = time.monotonic()
        with (
            progress(recipe.steps * size, self._label, "row") as shown,
            prefetch(run.stream, state.step, until) as batches,
        ):
            shown.update(state.step * size)
            while state.step < until:
                batch = batches.next_batch()
                if len(batch.rows) != size:
                    raise TrainingError(
                        f"step {state.step}: the batch has {len(batch.rows)} rows, batch_size is {size}"
                    )
                rows, targets = run.normalised(batch)
                if state.step == 0:
                    set_decoder_bias(state, rows if targets is None else targets, recipe)
                corpora = ", ".join(batch.corpora)
                report = update(state, rows, recipe, run.numerics, corpora, targets, history.micro_batch)
                if state.step % recipe.monitor_every == 0 or state.step == recipe.steps:
                    seen = _look(run, state, report, rows if targets is None else targets)
                    history.curves += seen
                    if self._trackers is not None:
                        self._trackers.show(seen)
                    _show(shown, seen, size)
                else:
                    shown.update(size)
                history.wall_seconds = before[0] + time.monotonic() - started
                history.stall_seconds = before[1] + batches.stall_seconds
                if state.step % recipe.checkpoint_every == 0 or asked_to_end.is_set():
                    self.save()
                if asked_to_end.is_set() and state.step < recipe.steps:
                    log.warning("asked to end at step %d of %d; run again to go on", state.step, recipe.steps)
                    raise Preempted(state.step)


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
        normalisation, d_target = normalisation_of_sae(recipe, stream), None
    else:
        pairs = cast(PairStream, stream)
        normalisation, d_target = normalisation_of_transcoder(recipe, pairs, device), pairs.d_target
    numerics, choice = choose(recipe, stream.d_model, d_target, device, state_folder)
    identity = identity_of(recipe, stream, seed, device, numerics, normalisation, monitors, targets)
    return _Run(
        recipe, stream, monitors, seed, device, state_folder, numerics, choice, normalisation, identity, targets
    )


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
