"""Settings that decide every bit of a training."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from atlas.code_hash import Code
from atlas.config.recipe import Recipe
from atlas.training.checkpoint import Identity
from atlas.training.normalise import Normalisation
from atlas.training.state import Numerics
from atlas.training.streams import RowStream


def identity_of(
    recipe: Recipe,
    stream: RowStream,
    seed: int,
    device: torch.device,
    numerics: Numerics,
    normalisation: Normalisation,
    monitors: Mapping[str, Tensor],
    targets: Mapping[str, Tensor] | None,
) -> Identity:
    """The recipe key by key, and hashes of what is read, of the rows that are watched and of the code of training."""
    parts = {key: json.dumps(value) for key, value in recipe.model_dump(mode="json").items()}
    parts |= {
        "seed": str(seed),
        "data, hook and mix": stream.identity,
        "normalisation": json.dumps(normalisation.described()),
        "device": device.type,
        "products": f"{numerics.dtype}, {numerics.products}",
        "watched rows": _hash_of(monitors),
        "watched targets": "" if targets is None else _hash_of(targets),
        "code of training": Code(Path(__file__).parents[2]).hash_of("atlas/training/run.py"),
    }
    return Identity(parts)


def _hash_of(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + str(tuple(tensors[name].shape)).encode())
        digest.update(tensors[name].cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
