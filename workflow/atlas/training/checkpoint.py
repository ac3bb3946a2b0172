"""Resumable training state in one safetensors file: complete or absent, never unpickled."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from atlas.errors import TrainingError
from atlas.files import atomic_path
from atlas.training.state import TrainingState

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
_MOMENTS = ("mean", "mean_square")


@dataclass
class History:
    """What a run has to remember besides its state: curves, time spent, and from which steps it was resumed."""

    curves: list[dict[str, Any]] = field(default_factory=list)
    wall_seconds: float = 0.0
    stall_seconds: float = 0.0
    resumed_from: list[int] = field(default_factory=list)


def write_checkpoint(folder: Path, state: TrainingState, history: History, identity: str) -> None:
    """Replace the checkpoint; if that fails (a full disk), the previous one stays and TrainingError is raised."""
    tensors = {"threshold": state.threshold, "tokens_since_fired": state.tokens_since_fired}
    for name, parameter in state.parameters.items():
        tensors[name] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{name}.{moment}"] = getattr(state.optimizer, moment)[name]
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"identity": identity, "step": str(state.step), "history": json.dumps(vars(history), allow_nan=False)}
    target = Path(folder) / CHECKPOINT_FILE
    try:
        with atomic_path(target) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{target}: the checkpoint of step {state.step} could not be written ({error}); "
            "the previous one, if any, is kept: make room and run again"
        ) from error


def read_checkpoint(folder: Path, state: TrainingState, identity: str) -> History:
    """Bring `state` to the checkpoint and return its history; without a checkpoint of this run, change nothing.

    A checkpoint of another identity is what an edited recipe, mix or store leaves behind: it is discarded, and that is
    logged. One that cannot be read raises TrainingError naming the file.
    """
    path = Path(folder) / CHECKPOINT_FILE
    if not path.exists():
        return History()
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                log.warning("%s: belongs to another recipe, seed, data or code; discarded, training starts anew", path)
                return History()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state.step = int(metadata["step"])
        _restore(state, tensors)
        history = History(**json.loads(metadata["history"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error}); delete it to train from the start") from error
    history.resumed_from.append(state.step)
    log.info("resumed from %s at step %d", path, state.step)
    return history


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
