"""Weights in float8 with scales, as plain weights: the one kind of quantised checkpoint that is read.

A weight is the stored number times its scale, which belongs to the tensor, to a row or to a block of rows and columns.
Each product is taken in float32 and rounded once. Other methods are refused by name.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atlas.errors import SourceError
from atlas.files import write_json
from atlas.models.checkpoint import packed, quantisation, stored_formats, write_plain_config

log = logging.getLogger(__name__)

_METHODS = ("fp8", "modelopt")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale_inv", "_scale")
# Scales of activations and of keys and values: of how a server would compute, not of the weights.
_OF_ACTIVATIONS = ("input_scale", "activation_scale", "k_scale", "v_scale", "q_scale", "output_scale")


def plain_weights(name: str, origin: Path, dtype: torch.dtype, scratch: Path) -> Path:
    """`origin`, or a folder in `scratch` with its weights dequantised to `dtype`.

    Raises SourceError that names the method, or the tensor and its number format, when the weights are stored in a way
    that is not read: their numbers would be taken for the weights.
    """
    if origin.suffix == ".gguf":
        return origin
    stated, formats = quantisation(origin), stored_formats(name, origin)
    kinds = packed(formats)
    if stated is None and not kinds:
        return origin
    if stated is None or stated["quant_method"] not in _METHODS:
        raise SourceError(_refusal(name, origin, stated, kinds))
    powers = {key for key, kind in kinds.items() if kind == "F8_E8M0" and key.endswith(_SCALES)}
    if odd := sorted(key for key, kind in kinds.items() if kind not in _FLOAT8 and key not in powers):
        raise SourceError(_refusal(name, origin, stated, {key: kinds[key] for key in odd}))
    scratch.mkdir()
    _write(name, origin, stated, {key: where for key, (where, _, _) in formats.items()}, kinds, dtype, scratch)
    return scratch


def dequantised(weight: Tensor, scale: Tensor, block: Sequence[int] | None) -> Tensor:
    """Float32 weight of a matrix; raises ValueError when the scale belongs to neither tensor, row nor block."""
    rows, columns = weight.shape
    scale = scale.float()
    if scale.numel() == 1:
        return weight.float() * scale.reshape(())
    if scale.shape in ((rows,), (rows, 1)):
        return weight.float() * scale.reshape(rows, 1)
    if block is None or tuple(scale.shape) != (-(-rows // block[0]), -(-columns // block[1])):
        raise ValueError(
            f"weights {tuple(weight.shape)} with scales {tuple(scale.shape)} and weight_block_size {block}: must be "
            "one scale, one a row, or one a block"
        )
    wide = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return weight.float() * wide


def _write(
    name: str,
    origin: Path,
    stated: Mapping[str, Any],
    places: Mapping[str, Path],
    kinds: Mapping[str, str],
    dtype: torch.dtype,
    target: Path,
) -> None:
    weights = {key for key, kind in kinds.items() if kind in _FLOAT8}
    scales = {key: _scale_of(name, origin, key, places) for key in weights}
    block = stated.get("weight_block_size")
    dropped = {*scales.values(), *(key for key in places if key.rpartition(".")[2] in _OF_ACTIVATIONS)}
    index: dict[str, str] = {}
    for path in sorted(set(places.values())):
        plain = {}
        with safe_open(path, framework="pt") as file:
            for key in (key for key, place in places.items() if place == path and key not in dropped):
                value = file.get_tensor(key)
                if key in weights:
                    value = _read(name, path, key, value, _tensor(places[scales[key]], scales[key]), block).to(dtype)
                plain[key] = value
        save_file(plain, target / path.name, metadata={"format": "pt"})
        index |= dict.fromkeys(plain, path.name)
    if len(set(places.values())) > 1:
        write_json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    write_plain_config(origin, target / "config.json")
    log.info("model %s: %d weights dequantised (%s)", name, len(weights), stated["quant_method"])


def _read(name: str, path: Path, key: str, value: Tensor, scale: Tensor, block: Sequence[int] | None) -> Tensor:
    if value.ndim != 2:
        raise SourceError(f"models.{name}: {path}: {key} is float8 of shape {tuple(value.shape)}: must be a matrix")
    try:
        return dequantised(value, scale, block)
    except ValueError as error:
        raise SourceError(f"models.{name}: {path}: {key}: {error}; give the unquantised model") from error


def _scale_of(name: str, origin: Path, key: str, places: Mapping[str, Path]) -> str:
    found = [key + suffix for suffix in _SCALES if key + suffix in places]
    if len(found) != 1:
        raise SourceError(
            f"models.{name}: {origin}: {key} is stored in float8 with the scales {found}: must have exactly one of "
            f"{[key + suffix for suffix in _SCALES]}; give the unquantised model"
        )
    return found[0]


def _tensor(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)


def _refusal(name: str, origin: Path, stated: Mapping[str, Any] | None, kinds: Mapping[str, str]) -> str:
    example = next((f", for example {key} as {kind}" for key, kind in sorted(kinds.items())), "")
    method = "no quantization_config" if stated is None else f"quant_method {stated['quant_method']!r}"
    return (
        f"models.{name}: {origin} holds quantised weights ({method}{example}) that are not read: must be plain weights "
        f"in float32, float16 or bfloat16, float8 with scales by one of {list(_METHODS)}, or a .gguf file. Give the "
        "unquantised model, or dequantise it with the method's own tools"
    )
