"""Gemma Scope 1 (``params.npz``) and 2 (``params.safetensors``), SAEs and transcoders.

No code of the releases is published; the formula is that of arXiv 2408.05147, section 3, and what sae-lens 6.54.12 and
circuit-tracer 0.5.0 compute with the files.
"""

import re
from pathlib import Path

from torch import Tensor

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, Settings, read_npz, read_safetensors
from atlas.published.hooks import hook_of
from atlas.published.weights import PublishedTensors, require_thresholds
from atlas.training.sae import Sae

_PATTERNS = ("params.npz", "params.safetensors", "config.json")
_VERSIONS = "the files of Gemma Scope 1 and 2 as sae-lens 6.54.12 and circuit-tracer 0.5.0 read them"
# Version 1 writes W_enc, version 2 w_enc.
_WEIGHTS = {"w_enc": "W_enc", "w_dec": "W_dec"}
_LAYER = re.compile(r"layer_(\d+)")
_L0 = re.compile(r"average_l0_(\d+)")


def read_gemma_scope(release: Release) -> Read:
    """Gemma Scope: JumpReLU with a threshold per latent; b_dec is not subtracted before encoding."""
    return _read(release, is_transcoder=False)


def read_gemma_scope_transcoder(release: Release) -> Read:
    """Gemma Scope's transcoders: the same tensors from one hook to another, with or without a skip connection."""
    return _read(release, is_transcoder=True)


def _read(release: Release, is_transcoder: bool) -> Read:
    path = release.find("params.npz", "params.safetensors")
    settings = _settings(release)
    hook = settings.note("hf_hook_point_in") if settings else None
    target = settings.note("hf_hook_point_out") if settings else None
    if settings is not None:
        settings.take("architecture", "jump_relu", known=("jump_relu",), why="as the paper has it")
    if settings is not None and target is not None and not is_transcoder:
        raise ReadingError(
            f"{settings.path}: hf_hook_point_out is {target!r}, so this is a transcoder; read it as "
            "gemma_scope_transcoder"
        )
    _require_layer(release, hook)
    sae = _sae(PublishedTensors(path, _tensors(path)), is_transcoder)
    l0 = _L0.fullmatch(release.folder.resolve().name)
    model = settings.note("model_name") if settings else None
    return Read(sae, hook, target, model, l0=float(l0[1]) if l0 else None)


def _settings(release: Release) -> Settings | None:
    """Version 2's config.json; version 1 has none."""
    path = release.beside("config.json")
    return None if path is None else release.json(path)


def _tensors(path: Path) -> dict[str, Tensor]:
    found = read_npz(path) if path.suffix == ".npz" else read_safetensors(path)
    return {_WEIGHTS.get(name, name): tensor for name, tensor in found.items()}


def _require_layer(release: Release, hook: str | None) -> None:
    """Raise ReadingError for a hook of another layer than the folder's name states."""
    named = hook_of(release.stated.take("hook")) or hook_of(hook)
    match = next((match for part in reversed(release.folder.parts[-3:]) if (match := _LAYER.search(part))), None)
    if match and named and int(named.partition(".")[2]) != int(match[1]):
        raise ReadingError(
            f"{release.folder}: its name is of layer {int(match[1])}, but hook is {named}; correct one of them"
        )


def _sae(weights: PublishedTensors, is_transcoder: bool) -> Sae:
    W_enc = weights.take("W_enc", (None, None))
    d_model, n_latents = W_enc.shape
    W_dec = weights.take("W_dec", (n_latents, None if is_transcoder else d_model))
    skip = None
    if "affine_skip_connection" in weights:
        if not is_transcoder:
            raise ReadingError(
                f"{weights.path}: has affine_skip_connection, so this is a transcoder; read it as "
                "gemma_scope_transcoder"
            )
        skip = weights.take("affine_skip_connection", (d_model, W_dec.shape[1]))
    thresholds = require_thresholds(weights.path, "threshold", weights.take("threshold", (n_latents,)))
    sae = Sae(
        "jumprelu",
        W_enc=W_enc,
        b_enc=weights.take("b_enc", (n_latents,)),
        W_dec=W_dec,
        b_dec=weights.take("b_dec", (W_dec.shape[1],)),
        latent_parameters={"thresholds": thresholds},
        is_transcoder=is_transcoder,
        subtracts_b_dec=False,
        W_skip=skip,
    )
    if "scaling_factor" in weights and not bool((weights.take("scaling_factor") == 1).all()):
        raise ReadingError(f"{weights.path}: scaling_factor is not 1 everywhere, which no release is known to have")
    weights.require_all_taken()
    return sae


GEMMA_SCOPE = PublishedFormat("gemma_scope", read_gemma_scope, _PATTERNS, _VERSIONS)
GEMMA_SCOPE_TRANSCODER = PublishedFormat("gemma_scope_transcoder", read_gemma_scope_transcoder, _PATTERNS, _VERSIONS)
