"""dictionary_learning: ``ae.pt`` and ``config.json``. Compared with dictionary-learning 0.1.0."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, Settings, read_torch, tensors_of
from atlas.published.weights import PublishedTensors, require_k, require_size, unit_rows
from atlas.training.sae import Sae

_VERSION = "dictionary-learning 0.1.0"
_WHY = f"as {_VERSION} does"


def read_dictionary_learning(release: Release) -> Read:
    """dictionary_learning: AutoEncoder, AutoEncoderNew, Gated, JumpReLU, TopK, BatchTopK and Matryoshka BatchTopK.

    The class is not in ``ae.pt``: config.json says it as ``dict_class``, or the user does.
    """
    path = release.find("ae.pt", "*.pt")
    settings = _settings(release, path)
    name = settings.take("dict_class", known=tuple(_CLASSES), kind=str)
    weights = PublishedTensors(path, tensors_of(path, read_torch(path)))
    sae = _CLASSES[name](settings, weights)
    require_size(settings.path, "activation_dim", settings.note("activation_dim"), sae.d_model)
    require_size(settings.path, "dict_size", settings.note("dict_size"), sae.n_latents)
    weights.require_all_taken()
    layer, site = settings.note("layer"), settings.note("submodule_name")
    return Read(
        sae,
        hook=_hook(layer, site),
        model=settings.note("lm_name"),
        context={"submodule_name": site},
        l0=sae.k,
        alternatives=_alternatives(name, sae, weights),
    )


def _settings(release: Release, path: Path) -> Settings:
    """The ``trainer`` section of config.json; without the file, what is stated alone."""
    beside = release.beside("config.json")
    if beside is None:
        return release.mapping(path.with_name("config.json"), {})
    whole = release.json(beside)
    release.settings.remove(whole)
    trainer = whole.note("trainer")
    return release.mapping(beside, {} if trainer is None else trainer)


def _hook(layer: Any, site: Any) -> str | None:
    """``resid_post_layer_3`` as ``resid_post.3``; other names as they are, for the card."""
    if isinstance(layer, int) and isinstance(site, str) and site.endswith(f"_layer_{layer}"):
        return f"{site.removesuffix(f'_layer_{layer}')}.{layer}"
    return site if isinstance(site, str) else None


def _linear(weights: PublishedTensors, b_dec: str, b_enc: str | None) -> dict[str, Any]:
    """Tensors of the classes that are made of nn.Linear: both matrices lie transposed in the file."""
    W_enc = weights.take("encoder.weight", (None, None)).T.contiguous()
    d_model, n_latents = W_enc.shape
    return {
        "W_enc": W_enc,
        "W_dec": weights.take("decoder.weight", (d_model, n_latents)).T.contiguous(),
        "b_dec": weights.take(b_dec, (d_model,)),
    } | ({} if b_enc is None else {"b_enc": weights.take(b_enc, (n_latents,))})


def _plain(weights: PublishedTensors) -> dict[str, Any]:
    """Tensors of the classes that hold their matrices as they are used."""
    W_enc = weights.take("W_enc", (None, None))
    d_model, n_latents = W_enc.shape
    return {
        "W_enc": W_enc,
        "W_dec": weights.take("W_dec", (n_latents, d_model)),
        "b_enc": weights.take("b_enc", (n_latents,)),
        "b_dec": weights.take("b_dec", (d_model,)),
    }


def _auto_encoder(settings: Settings, weights: PublishedTensors) -> Sae:
    """Bring decoder rows to norm 1 and multiply latents by the norm, as its loader does unless told not to."""
    sae = Sae("relu", **_linear(weights, "bias", "encoder.bias"))
    return unit_rows(weights.path, sae) if settings.option("normalize_decoder", True) else sae


def _auto_encoder_new(settings: Settings, weights: PublishedTensors) -> Sae:
    return Sae("relu", **_linear(weights, "decoder.bias", "encoder.bias"), subtracts_b_dec=False)


def _gated(settings: Settings, weights: PublishedTensors) -> Sae:
    shared = _linear(weights, "decoder_bias", None)
    n_latents = shared["W_enc"].shape[1]
    gate, r_mag, b_mag = (weights.take(name, (n_latents,)) for name in ("gate_bias", "r_mag", "mag_bias"))
    return Sae("gated", **shared, b_enc=gate, latent_parameters={"r_mag": r_mag, "b_mag": b_mag})


def _jumprelu(settings: Settings, weights: PublishedTensors) -> Sae:
    """Read a JumpReLU SAE. The files do not say whether b_dec is subtracted; the package's loader takes false."""
    shared = _plain(weights)
    subtracts = settings.take("apply_b_dec_to_input", False, kind=bool, why=_WHY)
    thresholds = weights.take("threshold", (shared["W_enc"].shape[1],))
    return Sae("jumprelu", **shared, latent_parameters={"thresholds": thresholds}, subtracts_b_dec=subtracts)


def _k(settings: Settings, weights: PublishedTensors, n_latents: int) -> int:
    k = int(weights.number("k"))
    told = settings.take("k", None) if "k" in settings else settings.option("k", None)
    if told is not None and told != k:
        raise ReadingError(
            f"{weights.path}: k is {k}, but {told} is stated by you or by "
            f"{settings.path.name}; correct it, or leave it out"
        )
    return require_k(weights.path, k, n_latents)


def _topk(settings: Settings, weights: PublishedTensors) -> Sae:
    """Read a TopK SAE. The file has a ``threshold``, which the package's encode does not use."""
    shared = _linear(weights, "b_dec", "encoder.bias")
    weights.number("threshold")
    return Sae("topk", **shared, k=_k(settings, weights, shared["W_enc"].shape[1]))


def _batch_topk(settings: Settings, weights: PublishedTensors) -> Sae:
    return _with_threshold("batch_topk", _linear(weights, "b_dec", "encoder.bias"), settings, weights)


def _matryoshka(settings: Settings, weights: PublishedTensors) -> Sae:
    """Read a Matryoshka SAE as BatchTopK: ``group_sizes`` change training alone."""
    shared = _plain(weights)
    sizes = weights.whole_numbers("group_sizes")
    if sum(sizes) != shared["W_enc"].shape[1]:
        raise ReadingError(f"{weights.path}: group_sizes add up to {sum(sizes)}, expected {shared['W_enc'].shape[1]}")
    return _with_threshold("matryoshka_batch_topk", shared, settings, weights)


def _alternatives(name: str, sae: Sae, weights: PublishedTensors) -> dict[str, Sae]:
    """TopK and BatchTopK have the same tensors: only the name of the class tells them apart."""
    if name == "AutoEncoderTopK" and (threshold := weights.number("threshold")) >= 0:
        return {"dict_class BatchTopKSAE": replace(sae, architecture="batch_topk", threshold=threshold)}
    if name == "BatchTopKSAE":
        return {"dict_class AutoEncoderTopK": replace(sae, architecture="topk", threshold=None)}
    return {}


def _with_threshold(name: str, shared: dict[str, Any], settings: Settings, weights: PublishedTensors) -> Sae:
    threshold = weights.number("threshold")
    sae = Sae(name, **shared, k=_k(settings, weights, shared["W_enc"].shape[1]), threshold=threshold)
    if threshold >= 0:
        return sae
    settings.assumed.append(
        f"{weights.path.name}: threshold is {threshold:g}, never set by training; every positive latent is kept {_WHY}"
    )
    return replace(sae, architecture="relu", threshold=None)


_CLASSES: dict[str, Callable[[Settings, PublishedTensors], Sae]] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _auto_encoder_new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
DICTIONARY_LEARNING = PublishedFormat(
    "dictionary_learning", read_dictionary_learning, ("ae.pt", "config.json"), _VERSION
)
