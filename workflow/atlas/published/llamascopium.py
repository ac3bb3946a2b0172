"""Llamascopium (``config.json``, ``sae_weights.safetensors``) and Llama Scope (``hyperparams.json``, ``checkpoints/``).

Compared with llamascopium 2.0.0b34, and for the files of Llama Scope with sae-lens 6.54.12.
"""

from dataclasses import replace
from math import sqrt
from typing import Any

import torch

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, Settings, read_safetensors
from atlas.published.weights import PublishedTensors, require_k, require_size, row_norms, scaled
from atlas.training.sae import Sae

_VERSION = "llamascopium 2.0.0b34"
_WHY = f"as {_VERSION} does"
_SAELENS = "sae-lens 6.54.12"
_LOG_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
_NORMS = (1e-6, 1e9)
_NORM = "dataset_average_activation_norm."


def read_llamascopium(release: Release) -> Read:
    """Llamascopium: ReLU, JumpReLU (the file has ln θ) and top-k; the gate sees a latent times its decoder row's norm.

    With ``norm_activation: dataset-wise`` rows are multiplied by √d_model / norm first, which is folded in here.
    ``norm_activation`` may be stated as "inference" where weights are folded and config.json does not say so.
    """
    settings = release.json(_beside(release, "config.json"))
    path = release.find("sae_weights.safetensors")
    weights = PublishedTensors(path, _named(read_safetensors(path)))
    settings.take("sae_type", "sae", known=("sae",), why=_WHY)
    if settings.note("use_glu_encoder", False) or "W_E_glu" in weights:
        raise ReadingError(
            f"{settings.path}: use_glu_encoder is true, expected false: a gated product is not known here"
        )
    hooks = [settings.note(key) for key in ("hook_point_in", "hook_point_out")]
    is_transcoder = hooks[0] != hooks[1] and hooks[1] is not None
    W_enc = weights.take("W_E", (None, None))
    d_model, n_latents = W_enc.shape
    has_bias = settings.take("use_decoder_bias", True, kind=bool, why=_WHY)
    sae = Sae(
        "relu",
        W_enc=W_enc,
        b_enc=weights.take("b_E", (n_latents,)),
        W_dec=weights.take("W_D", (n_latents, None if is_transcoder else d_model)),
        b_dec=weights.take("b_D") if has_bias else torch.zeros(d_model),
        is_transcoder=is_transcoder,
        subtracts_b_dec=False,
    )
    require_size(settings.path, "d_model", settings.note("d_model"), d_model)
    _require_expansion(settings, d_model, n_latents)
    sae = _normalised(settings, weights, _activated(settings, weights, sae), hooks)
    weights.require_all_taken(besides=[name for name in weights.names() if name.startswith(_NORM)])
    model, context = _language_model(release)
    return Read(sae, hooks[0], hooks[1] if is_transcoder else None, model, context)


def _beside(release: Release, name: str) -> Any:
    path = release.beside(name)
    if path is None:
        raise ReadingError(f"{release.folder}: has no {name}; expected one")
    return path


def _named(found: dict[str, Any]) -> dict[str, Any]:
    """Files of Llama Scope R1 Distill have nn.Linear's names and order of axes."""
    if "encoder.weight" not in found:
        return found
    names = {"encoder.weight": "W_E", "encoder.bias": "b_E", "decoder.weight": "W_D", "decoder.bias": "b_D"}
    return {names.get(name, name): each.T if name.endswith(".weight") else each for name, each in found.items()}


def _require_expansion(settings: Settings, d_model: int, n_latents: int) -> None:
    factor = settings.note("expansion_factor")
    # int() of a product of fractions may be one off.
    if factor is not None and abs(d_model * factor - n_latents) > 1:
        raise ReadingError(
            f"{settings.path}: d_model times expansion_factor is {d_model * factor:g}, but the tensors have "
            f"{n_latents} latents; get the files again"
        )


def _activated(settings: Settings, weights: PublishedTensors, sae: Sae) -> Sae:
    known = ("relu", "jumprelu", "topk", "batchtopk")
    name = settings.take("act_fn", "relu", known=known, kind=str, why=_WHY)
    by_norm = settings.take("sparsity_include_decoder_norm", True, kind=bool, why=_WHY)
    k = settings.note("top_k")
    norms = row_norms(sae.W_dec)
    if name == "relu":  # a positive factor changes no sign
        return sae
    if name == "jumprelu":
        log = next((each for each in _LOG_THRESHOLDS if each in weights), _LOG_THRESHOLDS[0])
        thresholds = weights.take(log, (sae.n_latents,)).double().exp()
        thresholds = thresholds / norms if by_norm else thresholds
        return replace(sae, architecture="jumprelu", latent_parameters={"thresholds": thresholds.float()})
    if name == "batchtopk":
        raise ReadingError(
            f"{settings.path}: act_fn is 'batchtopk', which takes the largest of a whole batch at inference too: the "
            "latents of a row depend on the rows beside it; convert it to jumprelu with Llamascopium first"
        )
    k = require_k(settings.path, settings.take("top_k", kind=int), sae.n_latents)
    if not by_norm:
        return replace(sae, architecture="topk", k=k)
    return replace(sae, architecture="norm_topk", k=k, latent_parameters={"norms": norms.float()})


def _normalised(settings: Settings, weights: PublishedTensors, sae: Sae, hooks: list[str | None]) -> Sae:
    how = settings.take("norm_activation", "dataset-wise", kind=str, why=_WHY)
    if how == "inference":
        return sae
    if how == "token-wise":
        if sae.is_transcoder:
            raise ReadingError(f"{settings.path}: norm_activation is 'token-wise', expected another for a transcoder")
        return replace(sae, row_scale="constant_norm")
    if how != "dataset-wise":
        raise ReadingError(
            f"{settings.path}: norm_activation is {how!r}, expected one of dataset-wise, token-wise, inference"
        )
    norms = []
    for hook in hooks:
        norm = weights.number(f"{_NORM}{hook}")
        # Where the norm was never set, whatever was in memory is saved: any number, mostly a tiny one.
        if not _NORMS[0] <= norm <= _NORMS[1]:
            raise ReadingError(
                f"{weights.path}: {_NORM}{hook} is {norm:g}, expected {_NORMS[0]:g} to {_NORMS[1]:g}: it was never "
                "set; if the weights have the norm already, state norm_activation: inference"
            )
        norms.append(norm)
    return scaled(sae, sqrt(sae.d_model) / norms[0], sqrt(sae.d_model) / norms[1])


def _language_model(release: Release) -> tuple[str | None, dict[str, Any]]:
    """Return what lm_config.json says, beside the SAE or in the folder above."""
    path = release.beside("lm_config.json")
    if path is None:
        return None, {}
    settings = release.json(path)
    return settings.note("model_name"), {key: settings.note(key) for key in ("max_length", "prepend_bos")}


def read_llama_scope(release: Release) -> Read:
    """Llama Scope (2024): JumpReLU with one threshold for all latents, for rows times √d_model / norm.

    ``threshold_units`` may be stated. "rows": the threshold is for rows as they are stored, and is multiplied by the
    same factor as rows; sae-lens 6.54.12 does so. "normalised": it is for the multiplied rows, which the encoder reads.
    """
    settings = release.json(_beside(release, "hyperparams.json"))
    path = release.beside("checkpoints/final.safetensors") or release.find("final.safetensors")
    weights = PublishedTensors(path, _named(read_safetensors(path)))
    settings.take("act_fn", known=("jumprelu",), kind=str)
    if settings.note("apply_decoder_bias_to_pre_encoder", False) or settings.note("use_glu_encoder", False):
        raise ReadingError(
            f"{settings.path}: apply_decoder_bias_to_pre_encoder or use_glu_encoder is true, expected false for both"
        )
    hooks = [settings.note(key) for key in ("hook_point_in", "hook_point_out")]
    is_transcoder = hooks[1] is not None and hooks[0] != hooks[1]
    W_enc = weights.take("W_E", (None, None)).contiguous()
    d_model, n_latents = W_enc.shape
    require_size(settings.path, "d_model", settings.note("d_model"), d_model)
    require_size(settings.path, "d_sae", settings.note("d_sae"), n_latents)
    W_dec = weights.take("W_D", (n_latents, None if is_transcoder else d_model)).contiguous()
    has_bias = settings.note("use_decoder_bias", True)
    scale, output_scale = _scales(settings, d_model)
    thresholds, other = _one_threshold(settings, row_norms(W_dec), scale)
    sae = Sae(
        "jumprelu",
        W_enc=W_enc,
        b_enc=weights.take("b_E", (n_latents,)),
        W_dec=W_dec,
        b_dec=weights.take("b_D", (W_dec.shape[1],)) if has_bias else torch.zeros(W_dec.shape[1]),
        latent_parameters={"thresholds": thresholds},
        is_transcoder=is_transcoder,
        subtracts_b_dec=False,
    )
    weights.require_all_taken(besides=("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"))
    model, context = _language_model(release)
    sae = scaled(sae, scale, output_scale)
    target = hooks[1] if is_transcoder else None
    other_units = replace(sae, latent_parameters={"thresholds": other})
    # top_k is of training; the threshold was set to keep as many.
    l0 = settings.note("top_k")
    return Read(
        sae, hooks[0], target, model, context, l0=l0, alternatives={"threshold_units the other one": other_units}
    )


def _scales(settings: Settings, d_model: int) -> tuple[float, float]:
    how = settings.take("norm_activation", known=("dataset-wise", "inference"), kind=str)
    if how == "inference":
        return 1.0, 1.0
    norms = settings.take("dataset_average_activation_norm", kind=dict)
    for key in ("in", "out"):
        value = norms.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ReadingError(
                f"{settings.path}: dataset_average_activation_norm.{key} is {value!r}, expected a positive number"
            )
    return sqrt(d_model) / norms["in"], sqrt(d_model) / norms["out"]


def _one_threshold(settings: Settings, norms: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The threshold of every latent, and what it is in the other units."""
    threshold = settings.take("jump_relu_threshold", kind=(int, float))
    units = settings.take("threshold_units", "rows", known=("rows", "normalised"), why=f"as {_SAELENS} does")
    by_norm = settings.take("sparsity_include_decoder_norm", False, kind=bool, why=f"as {_SAELENS} does")
    both = {
        name: (torch.full_like(norms, threshold * factor) / (norms if by_norm else 1)).float()
        for name, factor in (("rows", scale), ("normalised", 1.0))
    }
    return both.pop(units), both.popitem()[1]


LLAMASCOPIUM = PublishedFormat(
    "llamascopium",
    read_llamascopium,
    ("config.json", "sae_weights.safetensors", "lm_config.json"),
    _VERSION,
)
LLAMA_SCOPE = PublishedFormat(
    "llama_scope",
    read_llama_scope,
    ("hyperparams.json", "lm_config.json", "checkpoints/final.safetensors"),
    f"the files of Llama Scope as {_SAELENS} reads them",
)
