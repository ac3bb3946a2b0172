"""The part of the run card that training knows."""

import importlib.metadata
import math
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.architectures import ARCHITECTURES
from atlas.training.checkpoint import History
from atlas.training.normalise import Normalisation
from atlas.training.parity import conventions
from atlas.training.sae import Sae
from atlas.training.schedule import base_lr
from atlas.training.state import Choice, Numerics
from atlas.training.streams import RowStream

# Sections that training writes; all others come from its caller.
TRAINING_SECTIONS = frozenset(
    {"sae", "optimisation", "drawn_shares", "tokens", "exclude_massive", "numerics", "seed", "versions", "hardware"}
    | {"cost", "outcomes", "warnings"}
)
_LIBRARIES = ("torch", "transformers", "numpy", "numba", "safetensors")


def training_fields(
    known: dict[str, Any],
    recipe: Recipe,
    stream: RowStream,
    sae: Sae,
    numerics: Numerics,
    choice: Choice,
    normalisation: Normalisation,
    history: History,
    final: dict[str, dict[str, Any]],
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """The fields of the caller and training's own.

    `final` holds the last look at every split.
    """
    drawn = recipe.steps * recipe.batch_size
    own = {
        "sae": {
            "architecture": recipe.architecture,
            "d_model": sae.d_model,
            "d_target": sae.d_target,
            "n_latents": recipe.n_latents,
            "k": recipe.k,
            "l1_coefficient": recipe.l1_coefficient,
            "threshold": sae.threshold,
            "threshold_beta": recipe.threshold_beta,
            "threshold_start_step": recipe.threshold_start_step,
            **recipe.sparsity(),
            "twin": recipe.twin,
            "normalisation": normalisation.described(),
        },
        "optimisation": {
            "optimizer": "Adam, betas {} and {}, decoder rows at unit norm".format(
                *ARCHITECTURES[recipe.architecture].betas
            ),
            "lr": base_lr(recipe),
            "warmup_steps": recipe.warmup_steps,
            "decay_start": recipe.decay_start,
            "steps": recipe.steps,
            "batch_size": recipe.batch_size,
            "micro_batch": history.micro_batch.rows,
            "micro_batch_halvings": history.micro_batch.halvings,
            "gradient_clip": limit if (limit := conventions(recipe).gradient_clip) < math.inf else None,
            "aux_coefficient": recipe.aux_coefficient,
            "dead_feature_tokens": recipe.dead_feature_tokens,
            "parity": recipe.parity,
        },
        "tokens": {"rows_trainable": stream.statistics().n_rows, "rows_drawn": drawn},
        "exclude_massive": recipe.exclude_massive,
        "numerics": {
            "products": str(numerics.dtype).removeprefix("torch."),
            "sparse_products": numerics.sparse,
            "kernels": numerics.products,
            "kernels_chosen_by": choice.by,
            "master_weights": "float32",
            "saved": "float32",
        },
        "seed": seed,
        "versions": versions(),
        "hardware": hardware(device),
        "cost": {
            "wall_seconds": round(history.wall_seconds, 3),
            "rows_per_second": round(drawn / max(history.wall_seconds, 1e-9), 1),
            "stall_share": round(history.stall_seconds / max(history.wall_seconds, 1e-9), 4),
            "update_milliseconds": choice.milliseconds,
            "peak_memory_mb": peak_memory_mb(device),
            "resumed_from_steps": history.resumed_from,
        },
        "outcomes": {
            split: {key: row[key] for key in ("explained_variance", "l0", "silent_share") if key in row}
            for split, row in final.items()
        },
    }
    clash = sorted(set(own) & set(known))
    if clash:
        raise TrainingError(f"run card: {', '.join(clash)} given by the caller, but known to training only")
    return known | own | {"drawn_shares": stream.drawn_shares(recipe.steps)}


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    try:
        atlas = importlib.metadata.version("sae-atlas")
    except importlib.metadata.PackageNotFoundError:
        atlas = "not installed, run from the repository"
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "atlas": atlas, **found}


def hardware(device: torch.device) -> dict[str, Any]:
    """The device, the processor and the threads that were used."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads()}


def processor() -> str:
    """Name of the processor, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process, and of the GPU where there is one, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB on Linux, bytes on macOS
    peak = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    if device.type == "cuda":
        peak["gpu"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    return peak
