"""Resumable training state in one safetensors file: complete or absent, never unpickled.

Each run keeps its checkpoint in a folder named after its identity. After an edit of the recipe, training starts anew
beside what the old recipe has left; edited back, it goes on where it was. docs/training.md has the reasons.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from atlas.errors import DamagedFileError, TrainingError
from atlas.files import sha256_strings
from atlas.tensors import facts_of, open_tensors, write_tensors
from atlas.training.memory import MicroBatch
from atlas.training.state import TrainingState

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
_MOMENTS = ("mean", "mean_square")
_REMEDY = "delete it to train from the start"
_SHOWN = 16  # characters of a digest that name a folder


@dataclass(frozen=True)
class Identity:
    """Settings that decide the bits of a run, by name: a checkpoint is of use to a run with the same identity only."""

    parts: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """Hash of all parts."""
        return sha256_strings([text for part in self.parts.items() for text in part])

    def differences(self, other: Mapping[str, str]) -> str:
        """In what another run differs, ``lr 0.001 instead of 0.003``; of hashes the name alone."""
        names = [name for name in {**self.parts, **other} if self.parts.get(name) != other.get(name)]
        return ", ".join(_difference(name, other.get(name), self.parts.get(name)) for name in names)


def _difference(name: str, found: str | None, expected: str | None) -> str:
    long = max(len(found or ""), len(expected or "")) > 40
    return name if long else f"{name} {found} instead of {expected}"


@dataclass
class History:
    """Record of a run besides its state: curves, time, from which steps it was resumed, micro-batches, and
    what was learnt of windows of the stream (`BatchStream.account`).
    """

    micro_batch: MicroBatch
    curves: list[dict[str, Any]] = field(default_factory=list)
    wall_seconds: float = 0.0
    stall_seconds: float = 0.0
    resumed_from: list[int] = field(default_factory=list)
    account: dict[str, Any] = field(default_factory=dict)


def checkpoint_path(folder: Path, identity: Identity) -> Path:
    """Return where the checkpoint of a run is, below its SAE's state folder."""
    return Path(folder) / identity.digest[:_SHOWN] / CHECKPOINT_FILE


def write_checkpoint(folder: Path, state: TrainingState, history: History, identity: Identity) -> None:
    """Replace the checkpoint; if that fails (a full disk), the previous one stays and TrainingError is raised."""
    tensors = {"threshold": state.threshold, "tokens_since_fired": state.tokens_since_fired}
    for name, parameter in state.parameters.items():
        tensors[name] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{name}.{moment}"] = getattr(state.optimizer, moment)[name]
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"identity": dict(identity.parts), "step": state.step, "history": dataclasses.asdict(history)}
    target = checkpoint_path(folder, identity)
    try:
        write_tensors(target, tensors, facts)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{target}: the checkpoint of step {state.step} could not be written ({error}); "
            "the previous one, if any, is kept: make room and run again"
        ) from error


def read_checkpoint(folder: Path, state: TrainingState, identity: Identity, history: History) -> History:
    """Bring `state` to the run's checkpoint and return its history; without one, change nothing and return `history`.

    Checkpoints of other identities are left alone, and named in the log with what differs. Raises TrainingError naming
    the file when it cannot be read, when a bit of it has changed, or it holds another run than its folder says.
    """
    _mention_others(folder, identity)
    path = checkpoint_path(folder, identity)
    if not path.exists():
        return history
    try:
        with open_tensors(path, _REMEDY) as file:
            facts = facts_of(file, path, _REMEDY)
            if differences := identity.differences(facts["identity"]):
                raise TrainingError(
                    f"{path}: is the checkpoint of another run ({differences}), but lies in the folder of this one; "
                    "move it back, or delete it to train from the start"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state.step = facts["step"]
        _restore(state, tensors)
        saved = facts["history"]
        history = History(**saved | {"micro_batch": MicroBatch(**saved["micro_batch"])})
    except DamagedFileError as error:
        raise TrainingError(f"damaged checkpoint: {error}") from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error}); {_REMEDY}") from error
    history.resumed_from.append(state.step)
    log.info("resumed from %s at step %d", path, state.step)
    return history


def _mention_others(folder: Path, identity: Identity) -> None:
    for path in sorted(Path(folder).glob(f"*/{CHECKPOINT_FILE}")):
        if path == checkpoint_path(folder, identity):
            continue
        try:
            with open_tensors(path, _REMEDY) as file:
                facts = facts_of(file, path, _REMEDY)
            step, differences = facts["step"], identity.differences(facts["identity"])
        except (DamagedFileError, KeyError, TypeError, AttributeError) as error:
            step, differences = "unknown", f"cannot be read: {error}"
        log.warning(
            "%s: the checkpoint of another run, at step %s, with %s. It is not used; with those settings back, "
            "training would go on from it. When this training is complete, it is deleted",
            path,
            step,
            differences,
        )


@torch.no_grad()
def _restore(state: TrainingState, tensors: dict[str, torch.Tensor]) -> None:
    device = state.threshold.device
    for name, parameter in state.parameters.items():
        parameter.copy_(tensors[name])
        for moment in _MOMENTS:
            getattr(state.optimizer, moment)[name].copy_(tensors[f"{name}.{moment}"])
    state.optimizer.steps.fill_(state.step)
    state.threshold = tensors["threshold"].to(device)
    state.tokens_since_fired = tensors["tokens_since_fired"].to(device)
