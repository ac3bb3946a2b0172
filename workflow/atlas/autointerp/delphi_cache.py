"""Delphi's cache of activations, written from stored codes: what `delphi.latents.LatentDataset` reads.

Format of eai-delphi 0.1.3 (`delphi/latents/cache.py`), byte for byte. Its own writer needs a forward pass with all
latents dense in memory, stops when a part of the latents never fires, and drops the last, incomplete batch of contexts;
this one reads codes in parts and leaves nothing out.
"""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float
from jaxtyping import Integer as Int
from safetensors.numpy import save_file  # noqa: TID251 (save_arrays makes its arrays contiguous)

from atlas.codes.store import Codes
from atlas.errors import EvaluationError
from atlas.files import atomic_path

# Smaller activations are taken to be none.
SMALLEST = 1e-5
_UINT16 = 2**16


def write_delphi_cache(codes: Codes, target: Path, *, module: str, model_name: str, n_splits: int) -> None:
    """Write ``<target>/<module>/``: a file per split of the latents, named ``<first>_<last>``, and config.json.

    A split holds `locations` (entries, 3), uint16 where that is enough, else uint32: context, position in it and latent
    counted from the split's first, in the order of the text; `activations` (entries,) float16; `tokens` (contexts,
    context_length) int64. Raises EvaluationError when an activation is beyond float16.
    """
    if not 1 <= n_splits <= codes.n_latents:
        raise EvaluationError(f"n_splits is {n_splits}: must be 1 to {codes.n_latents}, the number of latents")
    tokens = codes.tokens.reshape(-1, codes.context_length).astype(np.int64)
    with atomic_path(Path(target) / module) as folder:
        folder.mkdir(parents=True)
        for first, stop in _splits(codes.n_latents, n_splits):
            locations, activations = _entries(codes, first, stop)
            split = {"locations": locations, "activations": activations, "tokens": tokens}
            save_arrays(split, folder / f"{first}_{stop - 1}.safetensors")
        described = {
            "dataset_repo": str(codes.identity["corpus"]),
            "dataset_split": "eval",
            "dataset_name": "",
            "dataset_column": "text",
            "batch_size": len(tokens),
            "cache_ctx_len": codes.context_length,
            "n_tokens": int(tokens.size),
            "n_splits": n_splits,
            "model_name": model_name,
        }
        (folder / "config.json").write_text(json.dumps(described, indent=4), encoding="utf-8")


def save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file with the values of `arrays`, whatever their order in memory.

    safetensors.numpy 0.8.0 writes memory as it lies: a transposed array would be read back with its values moved.
    """
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _splits(n_latents: int, n_splits: int) -> list[tuple[int, int]]:
    """First and last-but-one latent of each split, as Delphi computes them: in float32, cut off."""
    edges = np.linspace(0, n_latents, n_splits + 1, dtype=np.float32).astype(np.int64)
    return list(pairwise(edges.tolist()))


def _entries(codes: Codes, first: int, stop: int) -> tuple[Int[np.ndarray, "entries 3"], Float[np.ndarray, " entries"]]:
    block = codes.latents(first, stop)
    block = block.only(np.abs(block.value) > SMALLEST)
    latent = block.latent
    order = np.lexsort((latent, block.row))
    row, latent = block.row[order].astype(np.int64), latent[order]
    with np.errstate(over="ignore"):
        activations = block.value[order].astype(np.float16)
    if not np.isfinite(activations).all():
        place = int(np.argmin(np.isfinite(activations)))
        raise EvaluationError(
            f"{codes.path}: latent {first + int(latent[place])} has activation {block.value[order][place]:g}, beyond "
            "float16, in which Delphi keeps them: its examples would be wrong without a word; scale the SAE"
        )
    locations = np.stack([row // codes.context_length, row % codes.context_length, latent], axis=1)
    small = not len(locations) or (locations[:, [0, 2]].max() < _UINT16)
    return locations.astype(np.uint16 if small else np.uint32), activations
