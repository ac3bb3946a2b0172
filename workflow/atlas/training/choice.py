"""Choose the kernels of a training: named by the recipe, recorded by an earlier start, or measured on this machine.

The ways differ in the last bits of the weights. So the choice is kept beside the checkpoints, where a run that is
resumed finds it on any machine. The run card has it too.
"""

import hashlib
import importlib.metadata
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.files import read_json, write_json
from atlas.training.card import processor
from atlas.training.kernel_cache import cache_root, locked_folder
from atlas.training.state import Choice, Numerics, choose_numerics, is_unfused_twin, new_state
from atlas.training.update import update

log = logging.getLogger(__name__)

RECORD_FILE = "kernels.json"
# Multiplications of the encoder from which measuring pays; below, the interpreter takes most of an update.
_MEASURED_FROM = 10**8
# All latents are computed by no way that could be fastest where fewer than this share is kept.
_DENSE_FROM = 1 / 32
# Fused kernels are taken unless another way is faster by more than measuring errs.
_MARGIN = 1.1
_WARM_UP, _REPETITIONS, _SECONDS = 2, 5, 20.0


def choose(
    recipe: Recipe, d_model: int, d_target: int | None, device: torch.device, state_folder: Path
) -> tuple[Numerics, Choice]:
    """Return how this training computes. The choice is recorded in `state_folder`; one that is already there holds.

    Raises TrainingError when the way that is recorded or named cannot run here.
    """
    numerics = choose_numerics(recipe, device)
    if recipe.products != "auto" and not is_unfused_twin(recipe):
        return _runnable(numerics), Choice(numerics.products, "recipe")
    target = d_model if d_target is None else d_target
    small = recipe.batch_size * d_model * recipe.n_latents < _MEASURED_FROM
    if device.type != "cpu" or recipe.k is None or recipe.parity or recipe.twin or small:
        return numerics, Choice(numerics.products, "shape")
    shape = {
        "architecture": recipe.architecture,
        "d_model": d_model,
        "d_target": target,
        "n_latents": recipe.n_latents,
        "k": recipe.k,
        "batch_size": recipe.batch_size,
        "products": str(numerics.dtype),
    }
    record = Path(state_folder) / RECORD_FILE
    key = " ".join(f"{name}={value}" for name, value in shape.items())
    recorded = read_json(record, "delete it to choose anew") if record.exists() else {}
    if key in recorded:
        choice = Choice(**recorded[key])
        log.info("products: %s, as when this training began (%s)", choice.products, record)
    else:
        choice = _measured_once(recipe, shape, d_target, numerics.dtype)
        write_json(record, recorded | {key: asdict(choice)})
    return _runnable(Numerics.named(numerics.dtype, choice.products)), choice


def _runnable(numerics: Numerics) -> Numerics:
    if numerics.fused:
        try:
            import atlas.training.fused.passes  # noqa: F401
        except ImportError as error:
            raise TrainingError(
                f"this training computes with fused kernels, which cannot be loaded here ({error}); install "
                "envs/requirements.txt, or set products: sparse in the recipe, which trains anew with other last bits"
            ) from error
    return numerics


def _measured_once(recipe: Recipe, shape: dict[str, Any], d_target: int | None, dtype: torch.dtype) -> Choice:
    """Return the choice for this shape, processor, threads and libraries; the first job that needs it measures it."""
    machine = {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numba")},
    }
    facts = shape | machine
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    try:
        with locked_folder("choices") as folder:
            path = folder / f"{name}.json"
            if not path.exists():
                write_json(path, {"of": facts, "choice": asdict(_measure(recipe, shape, d_target, dtype))})
            return Choice(**read_json(path, "delete it to measure anew")["choice"])
    except OSError as error:
        log.warning("%s: %s; the fastest way is measured for this job alone", cache_root(), error)
    return _measure(recipe, shape, d_target, dtype)


def _measure(recipe: Recipe, shape: dict[str, Any], d_target: int | None, dtype: torch.dtype) -> Choice:
    """Time a few updates of each way in turn, with weights of their own, and choose the fastest."""
    names = ["fused", "sparse"]
    assert recipe.k is not None  # only selected latents have a choice
    if recipe.k >= _DENSE_FROM * recipe.n_latents:
        names.append("dense")
    ways = {name: _runnable(Numerics.named(dtype, name)) for name in names}
    settings = recipe.model_copy(update={"steps": 10**9, "decay_start": None, "dead_feature_tokens": 10**12})
    state = new_state(settings, shape["d_model"], 0, torch.device("cpu"), d_target)
    rows, targets = _rows(recipe.batch_size, shape["d_model"]), None
    if d_target is not None:
        targets = _rows(recipe.batch_size, d_target)
    times: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for repetition in range(_WARM_UP + _REPETITIONS):
        for name, numerics in ways.items():
            started = time.perf_counter()
            update(state, rows, settings, numerics, "measuring", targets)
            times[name].append(time.perf_counter() - started)
        if repetition > _WARM_UP and time.perf_counter() - began > _SECONDS:
            break
    milliseconds = {name: round(1e3 * min(taken[_WARM_UP:]), 3) for name, taken in times.items()}
    fastest = min(names, key=milliseconds.__getitem__)
    chosen = "fused" if milliseconds["fused"] <= _MARGIN * milliseconds[fastest] else fastest
    log.info("products: %s; milliseconds of an update: %s", chosen, milliseconds)
    return Choice(chosen, "measurement", milliseconds)


def _rows(n: int, width: int) -> torch.Tensor:
    """Rows of unit norm with a few strong directions, so that latents fire unevenly, as real ones do."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(n, 64, generator=generator).relu() @ torch.randn(64, width, generator=generator)
    rows = codes + torch.randn(n, width, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)
