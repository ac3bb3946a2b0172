"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``. Compared with sae-lens 6.54.12."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import REQUIRED, Release, Settings, read_safetensors
from atlas.published.weights import PublishedTensors, require_k, require_size, scaled, unit_rows
from atlas.training.sae import Sae

_VERSION = "sae-lens 6.54.12"
_DTYPES = ("float32", "float16", "bfloat16", "float64")
_RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
_REFUSED = {
    "abstopk": "its latents may be negative, which no table here defines",
    "matching_pursuit": "it encodes a row in steps, not by one product with an encoder",
    "temporal": "its latents depend on the tokens before",
    "batchtopk": "a training folder; save it with save_inference_model, which writes jumprelu",
    "matryoshka_batchtopk": "a training folder; save it with save_inference_model, which writes jumprelu",
}


@dataclass(frozen=True)
class _Kind:
    """An architecture: the name here, whether it is a transcoder, whether it has W_skip."""

    ours: str
    is_transcoder: bool = False
    has_skip: bool = False


_KINDS = {
    "standard": _Kind("relu"),
    "topk": _Kind("topk"),
    "jumprelu": _Kind("jumprelu"),
    "gated": _Kind("gated"),
    "transcoder": _Kind("relu", True),
    "skip_transcoder": _Kind("relu", True, True),
    "jumprelu_transcoder": _Kind("jumprelu", True),
    "jumprelu_skip_transcoder": _Kind("jumprelu", True, True),
}


@dataclass(frozen=True)
class Defaults:
    """Values that a package of this layout takes for missing keys; REQUIRED: it demands the key."""

    peer: str = _VERSION
    architecture: Any = "standard"
    apply_b_dec_to_input: bool = True
    k: Any = 100


def read_saelens(release: Release) -> Read:
    """SAELens: standard, topk, jumprelu, gated, and transcoders; keys of version 6 and of those before it."""
    settings = layout_settings(release)
    return read_layout(release, settings, Defaults(architecture=REQUIRED if _is_new(settings) else "standard"))


def _is_new(settings: Settings) -> bool:
    """Return whether SAELens 6 takes the file for one of its own: it then demands keys that it otherwise fills in."""
    version = settings.note("sae_lens_version")
    if version is None:
        return False
    match = re.match(r"(\d+)\.", str(version))
    if match is None:
        raise ReadingError(f"{settings.path}: sae_lens_version is {version!r}, expected a version such as '6.54.12'")
    return int(match[1]) >= 6


def layout_settings(release: Release) -> Settings:
    """Read the keys of cfg.json and of its ``metadata``; keys of versions before 6 get their new names."""
    path = release.find("cfg.json") if release.place.is_dir() else release.beside("cfg.json")
    if path is None:
        raise ReadingError(f"{release.folder}: has no cfg.json beside {release.place.name}; expected one")
    raw = release.json(path)
    release.settings.remove(raw)
    values = {_RENAMED.get(key, key): raw.note(key) for key in raw.ignored()}
    metadata = values.pop("metadata", {})
    if not isinstance(metadata, dict):
        raise ReadingError(f"{path}: metadata is {metadata!r}, expected a mapping")
    both = metadata | values  # at the top before 6, in metadata from then on
    arguments = both.get("activation_fn_kwargs") or {}
    if both.get("activation_fn") == "topk" and "k" in arguments:
        both = {"k": arguments["k"]} | both | {"architecture": "topk"}
    return release.mapping(path, both)


def read_layout(release: Release, settings: Settings, defaults: Defaults) -> Read:
    """An SAE in this layout, by the defaults of the package that wrote it."""
    path = settings.path
    version = settings.note("sae_lens_version")
    name = settings.take("architecture", defaults.architecture, why=f"as {defaults.peer} does", kind=str)
    if name not in _KINDS:
        reason = f": {_REFUSED[name]}" if name in _REFUSED else ""
        raise ReadingError(f"{path}: architecture is {name!r}{reason}; expected one of {', '.join(_KINDS)}")
    kind = _KINDS[name]
    _require_plain(settings)
    weights = PublishedTensors(*_tensors(release))
    sae = _sae(settings, weights, kind, defaults)
    require_size(path, "d_in", settings.note("d_in"), sae.d_model)
    require_size(path, "d_sae", settings.note("d_sae"), sae.n_latents)
    require_size(path, "d_out", settings.note("d_out"), sae.d_target)
    sae = _normalised(settings, _finetuned(settings, weights, sae), defaults)
    weights.require_all_taken(besides=("scaling_factor",))
    target = settings.note("hook_name_out") if kind.is_transcoder else None
    context = {key: settings.note(key) for key in ("context_size", "prepend_bos", "dataset_path", "hook_layer")}
    return Read(
        sae,
        hook=settings.note("hook_name") or settings.note("hf_hook_name"),
        target_hook=target,
        model=settings.note("model_name"),
        context={"saelens_version": version} | context,
        notes=_precision(settings, weights),
    )


def _tensors(release: Release) -> tuple[Path, dict[str, Tensor]]:
    path = release.find("sae_weights.safetensors")
    return path, read_safetensors(path)


def _require_plain(settings: Settings) -> None:
    """Refuse what changes the numbers and is not known here."""
    if "activation_fn" in settings:
        settings.take("activation_fn", known=("relu", "topk"))
    if "reshape_activations" in settings:
        settings.take("reshape_activations", known=("none", "hook_z"))
    settings.note("activation_fn_kwargs")


def _sae(settings: Settings, weights: PublishedTensors, kind: _Kind, defaults: Defaults) -> Sae:
    W_enc = weights.take("W_enc", (None, None))
    d_model, n_latents = W_enc.shape
    W_dec = weights.take("W_dec", (n_latents, None if kind.is_transcoder else d_model))
    d_target = W_dec.shape[1]
    subtracts = False
    if not kind.is_transcoder:
        why = f"as {defaults.peer} does"
        subtracts = settings.take("apply_b_dec_to_input", defaults.apply_b_dec_to_input, kind=bool, why=why)
    elif settings.note("apply_b_dec_to_input"):
        raise ReadingError(f"{settings.path}: apply_b_dec_to_input is true, expected false for a transcoder")
    sae = Sae(
        kind.ours,
        W_enc=W_enc,
        b_enc=weights.take("b_gate" if kind.ours == "gated" else "b_enc", (n_latents,)),
        W_dec=W_dec,
        b_dec=weights.take("b_dec", (d_target,)),
        latent_parameters=_own(weights, kind.ours, n_latents),
        is_transcoder=kind.is_transcoder,
        subtracts_b_dec=subtracts,
        W_skip=weights.take("W_skip", (d_target, d_model)).T.contiguous() if kind.has_skip else None,
    )
    return _topk(settings, sae, defaults) if kind.ours == "topk" else sae


def _own(weights: PublishedTensors, architecture: str, n_latents: int) -> dict[str, Tensor]:
    if architecture == "gated":
        return {name: weights.take(name, (n_latents,)) for name in ("r_mag", "b_mag")}
    if architecture == "jumprelu":
        if "log_threshold" in weights:  # checkpoints of training before 6
            return {"thresholds": weights.take("log_threshold", (n_latents,)).exp()}
        return {"thresholds": weights.take("threshold", (n_latents,))}
    return {}


def _topk(settings: Settings, sae: Sae, defaults: Defaults) -> Sae:
    why = f"as {defaults.peer} does"
    k = require_k(settings.path, settings.take("k", defaults.k, kind=int, why=why), sae.n_latents)
    if not settings.take("rescale_acts_by_decoder_norm", False, kind=bool, why=why):
        return replace(sae, k=k)
    # Latents keep the norm, and decoding divides by it: the same as a decoder of unit rows.
    return unit_rows(settings.path, replace(sae, k=k))


def _finetuned(settings: Settings, weights: PublishedTensors, sae: Sae) -> Sae:
    """Versions before 6 could multiply latents by a factor each on the way to the decoder."""
    used = settings.note("finetuning_scaling_factor", False)
    name = next((each for each in ("finetuning_scaling_factor", "scaling_factor") if each in weights), None)
    if name is None:
        if used:
            raise ReadingError(f"{settings.path}: finetuning_scaling_factor is {used!r}, but {weights.path} has none")
        return sae
    factor = weights.take(name, (sae.n_latents,))
    if bool((factor == 1).all()):
        return sae
    if not used:
        raise ReadingError(
            f"{weights.path}: {name} is not 1 everywhere, but finetuning_scaling_factor is {used!r} in "
            f"{settings.path}; expected true"
        )
    return replace(sae, W_dec=factor[:, None] * sae.W_dec)


def _normalised(settings: Settings, sae: Sae, defaults: Defaults) -> Sae:
    """The SAE for rows as they are. One number for all rows is folded in, a number per row is kept."""
    how = settings.take("normalize_activations", "none", why=f"as {defaults.peer} does")
    how = {None: "none", False: "none", True: "expected_average_only_in"}.get(how, how)
    if how == "none":
        return sae
    rule: dict[str, Callable[[], Sae]] = {
        "expected_average_only_in": lambda: scaled(sae, _stated_scale(settings)),
        "layer_norm": lambda: _per_row(settings, sae, "layer_norm"),
        "constant_norm_rescale": lambda: _per_row(settings, sae, "constant_norm"),
    }
    if how not in rule:
        raise ReadingError(
            f"{settings.path}: normalize_activations is {how!r}, expected one of none, {', '.join(rule)}"
        )
    return rule[how]()


def _stated_scale(settings: Settings) -> float:
    scale = settings.number("scale")
    if scale is None:
        raise ReadingError(
            f"{settings.path}: normalize_activations is 'expected_average_only_in', and the files do not say its "
            "number; state scale, by which rows are multiplied (√d_model / mean norm of the rows), or scale: 1 if "
            "the weights have it already"
        )
    return scale


def _per_row(settings: Settings, sae: Sae, row_scale: str) -> Sae:
    if sae.is_transcoder:
        raise ReadingError(
            f"{settings.path}: normalize_activations is {row_scale!r}, expected 'none' for a transcoder, whose output "
            "would not be in the scale of its target"
        )
    return replace(sae, row_scale=row_scale)


def _precision(settings: Settings, weights: PublishedTensors) -> tuple[str, ...]:
    """A note where SAELens would round the weights on loading."""
    asked = str(settings.note("dtype", "float32")).removeprefix("torch.")
    if asked not in _DTYPES:
        raise ReadingError(f"{settings.path}: dtype is {asked!r}, expected one of {', '.join(_DTYPES)}")
    held = str(weights.dtype("W_enc")).removeprefix("torch.")
    if torch.finfo(getattr(torch, asked)).bits >= torch.finfo(getattr(torch, held)).bits:
        return ()
    return (f"weights are read as stored ({held}); SAELens would round them to {asked}",)


SAELENS = PublishedFormat("saelens", read_saelens, ("cfg.json", "sae_weights.safetensors"), _VERSION)
