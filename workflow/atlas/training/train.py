"""The training loop: one for every architecture, resumable to the bit."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import TRANSCODERS, Recipe
from atlas.errors import TrainingError
from atlas.files import atomic_path, sha256_code, sha256_strings
from atlas.progress import Progress, progress
from atlas.runcard import require_fields, write_run_card
from atlas.training.architectures import ARCHITECTURES
from atlas.training.card import TRAINING_SECTIONS, training_fields
from atlas.training.checkpoint import History, read_checkpoint, write_checkpoint
from atlas.training.monitor import look
from atlas.training.normalise import Normalisation, normalisation_of_sae, normalisation_of_transcoder
from atlas.training.preemption import Preempted, listen
from atlas.training.prefetch import prefetch
from atlas.training.sae import Sae, save_sae
from atlas.training.state import Numerics, TrainingState, choose_numerics, folded_sae, new_state, set_decoder_bias
from atlas.training.streams import PairStream, RowBatch, RowStream
from atlas.training.transcoder import folded_transcoder
from atlas.training.update import Report, update

log = logging.getLogger(__name__)

CURVES_FILE, CARD_FILE = "training.parquet", "run_card.yaml"
_TRAIN = "train"
# Relative distance of L0 from K that is worth a warning (docs/metrics.md, sparsity).
_L0_TOLERANCE = 0.1


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
    normalisation: Normalisation
    identity: str
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
) -> None:
    """Train one SAE and write its weights, configuration, curves and run card to `folder`.

    `monitors` are rows that are not trained on, by role; `in_sample` is required. With `monitor_targets`, what is to be
    reconstructed from them, a transcoder is trained, and `stream` must be a PairStream. `run_card` holds the fields the
    caller knows (atlas.runcard names them); ``model.name`` and ``hook`` go into the SAE's own files. Checkpoints go
    to `state_folder`, from which a killed run goes on to the same bits; it is removed at the end.

    `training.parquet` has one row per look and split (`train`: the batch of that step; else a monitor): step (updates
    made), tokens (rows drawn), split, explained_variance, l0, and for monitors silent_share; for `train` loss,
    squared_error, auxiliary_loss, dead_latents, lr, threshold (of normalised rows) and gradient_norm. Time is not in
    it: the same run gives the same bytes.

    Raises TrainingError for values that make the result meaningless, and Preempted after SIGTERM.
    """
    run = _prepare(recipe, stream, monitors, seed, device, state_folder, monitor_targets, run_card)
    require_fields(Path(folder) / CARD_FILE, run_card, filled_later=TRAINING_SECTIONS)
    warnings = _warnings_before(recipe)
    state = new_state(recipe, stream.d_model, seed, device, None if monitor_targets is None else stream.d_target)
    history = read_checkpoint(state_folder, state, run.identity)
    _train(run, state, history)

    sae = run.folded(state)
    final = {row["split"]: row for row in history.curves if row["step"] == recipe.steps}
    warnings += _warnings_after(recipe, final["in_sample"])
    for warning in warnings:
        log.warning("%s", warning)
    fields = training_fields(
        run_card, recipe, stream, sae, run.numerics, run.normalisation, history, final, seed, device
    )
    _write_outputs(Path(folder), sae, history, fields | {"warnings": warnings})
    shutil.rmtree(state_folder, ignore_errors=True)


def _prepare(
    recipe: Recipe,
    stream: RowStream,
    monitors: Mapping[str, Tensor],
    seed: int,
    device: torch.device,
    state: Path,
    targets: Mapping[str, Tensor] | None,
    run_card: dict[str, Any],
) -> _Run:
    if (run_card.get("target_hook") is None) != (targets is None):
        raise TrainingError(
            f"the run card has target_hook {run_card.get('target_hook')!r}, but targets to monitor are "
            f"{'missing' if targets is None else 'given'}: a transcoder needs both, an SAE neither"
        )
    if "in_sample" not in monitors:
        raise TrainingError(f"monitors are {sorted(monitors)}: 'in_sample' is required, its L0 is compared with K")
    for name, rows in monitors.items():
        _check_monitor(f"monitor {name!r}", rows, f"d_model {stream.d_model}", stream.d_model)
    if targets is None:
        normalisation = normalisation_of_sae(recipe, stream)
    else:
        _check_transcoder(recipe, stream, monitors, targets)
        normalisation = normalisation_of_transcoder(recipe, stream, device)
    identity = sha256_strings(
        [
            recipe.model_dump_json(),
            str(seed),
            stream.identity,
            repr(normalisation.scale),
            device.type,
            *sorted(monitors),
            sha256_code([Path(__file__).parent]),
        ]
    )
    numerics = choose_numerics(recipe, device)
    return _Run(recipe, stream, monitors, seed, device, state, numerics, normalisation, identity, targets)


def _check_monitor(name: str, rows: Tensor, size: str, width: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) < 2:
        raise TrainingError(f"{name} has shape {tuple(rows.shape)}: expected at least 2 rows of {size}")
    if not bool(rows.isfinite().all()) or bool((rows == rows[0]).all()):
        raise TrainingError(f"{name}: rows are not finite or all equal; check its activation files")


def _check_transcoder(
    recipe: Recipe, stream: PairStream, monitors: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> None:
    if recipe.architecture not in TRANSCODERS or recipe.parity:
        raise TrainingError(
            f"a transcoder cannot have architecture {recipe.architecture!r} with parity {recipe.parity!r}: expected "
            f"one of {', '.join(TRANSCODERS)}, without parity"
        )
    for name, rows in monitors.items():
        if name not in targets or len(targets[name]) != len(rows):
            raise TrainingError(f"monitor {name!r}: its {len(rows)} rows need as many targets")
        _check_monitor(f"targets of monitor {name!r}", targets[name], f"d_target {stream.d_target}", stream.d_target)


def _train(run: _Run, state: TrainingState, history: History) -> None:
    """Make all updates that are left; `state` and `history` change in place."""
    recipe = run.recipe
    size = recipe.batch_size
    before = history.wall_seconds, history.stall_seconds
    started = time.monotonic()
    with (
        progress(recipe.steps * size, f"{recipe.architecture} seed {run.seed}", "row") as shown,
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
            report = update(state, rows, recipe, run.numerics, ", ".join(batch.corpora), targets)
            if state.step % recipe.monitor_every == 0 or state.step == recipe.steps:
                _monitor(run, state, history, report, rows if targets is None else targets, shown)
            else:
                shown.update(len(rows))
            history.wall_seconds = before[0] + time.monotonic() - started
            history.stall_seconds = before[1] + batches.stall_seconds
            if state.step % recipe.checkpoint_every == 0 or asked_to_end.is_set():
                write_checkpoint(run.state_folder, state, history, run.identity)
            if asked_to_end.is_set() and state.step < recipe.steps:
                log.warning("asked to end at step %d of %d; run again to go on", state.step, recipe.steps)
                raise Preempted(state.step)


def _monitor(run: _Run, state: TrainingState, history: History, report: Report, rows: Tensor, shown: Progress) -> None:
    """Append to the curves what the last update saw (`rows`: what it reconstructed) and what each monitor shows."""
    place = {"step": state.step, "tokens": state.step * run.recipe.batch_size}
    variance = (rows - rows.mean(dim=0)).square().sum(dim=1).mean().item()
    squared_error, has_threshold = report.squared_error.item(), state.threshold.item() >= 0
    history.curves.append(
        place
        | {
            "split": _TRAIN,
            "loss": report.loss.item(),
            "squared_error": squared_error,
            "auxiliary_loss": report.auxiliary.item(),
            "explained_variance": 1 - squared_error / variance if variance > 0 else None,
            "l0": report.l0.item(),
            "dead_latents": report.dead,
            "lr": report.lr,
            "threshold": state.threshold.item() if has_threshold else None,
            "gradient_norm": report.gradient_norm.item(),
        }
    )
    sae = run.folded(state)
    for name, held_out in run.monitors.items():
        targets = None if run.monitor_targets is None else run.monitor_targets[name]
        history.curves.append(place | {"split": name} | vars(look(sae, held_out, targets)))
    in_sample = next(row for row in reversed(history.curves) if row["split"] == "in_sample")
    shown.update(
        len(rows),
        loss=report.loss.item(),
        explained_variance=in_sample["explained_variance"],
        l0=in_sample["l0"],
        dead=report.dead,
    )


def _warnings_before(recipe: Recipe) -> list[str]:
    tokens = recipe.steps * recipe.batch_size
    revives = ARCHITECTURES[recipe.architecture].revives and recipe.aux_coefficient > 0
    if revives and recipe.dead_feature_tokens >= tokens:
        return [
            f"auxiliary_loss_never_active: dead_feature_tokens is {recipe.dead_feature_tokens:,}, training has "
            f"{tokens:,} rows; no latent can be counted dead, so none is revived; lower dead_feature_tokens"
        ]
    return []


def _warnings_after(recipe: Recipe, in_sample: dict[str, Any]) -> list[str]:
    if recipe.k is None or abs(in_sample["l0"] - recipe.k) <= _L0_TOLERANCE * recipe.k:
        return []
    return [
        f"sparsity_constraint_broken: L0 on held-out in-sample rows is {in_sample['l0']:.4g}, K is {recipe.k}; "
        "they differ by more than 10 %"
    ]


def _write_outputs(folder: Path, sae: Sae, history: History, fields: dict[str, Any]) -> None:
    columns = ["step", "tokens", "split", "explained_variance", "l0", "silent_share", "loss", "squared_error"]
    columns += ["auxiliary_loss", "dead_latents", "lr", "threshold", "gradient_norm"]
    curves = pd.DataFrame(history.curves, columns=columns)
    curves["dead_latents"] = curves["dead_latents"].astype("Int64")
    floats = [name for name in columns if name not in ("step", "tokens", "split", "dead_latents")]
    curves[floats] = curves[floats].astype("float64")
    target = {} if fields["target_hook"] is None else {"target_hook_name": fields["target_hook"]}
    save_sae(sae, folder, {"model_name": fields["model"]["name"], "hook_name": fields["hook"]} | target)
    with atomic_path(folder / CURVES_FILE) as temporary:
        curves.to_parquet(temporary, index=False)
    write_run_card(folder / CARD_FILE, fields)
