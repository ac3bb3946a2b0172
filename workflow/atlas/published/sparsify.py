"""sparsify: ``cfg.json`` and ``sae.safetensors`` in a folder named by the hook. Compared with eai-sparsify 1.3.3."""

import torch

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, read_safetensors
from atlas.published.weights import PublishedTensors, require_k, require_size
from atlas.training.sae import Sae

_VERSION = "eai-sparsify 1.3.3"
_WHY = f"as {_VERSION} does"
_ARCHITECTURES = {"topk": "topk", "groupmax": "group_max"}


def read_sparsify(release: Release) -> Read:
    """sparsify: ReLU, then the k largest, or the largest of each of k groups; SAEs and transcoders."""
    path = release.find("cfg.json") if release.place.is_dir() else release.beside("cfg.json")
    if path is None:
        raise ReadingError(f"{release.folder}: has no cfg.json beside {release.place.name}; expected one")
    settings = release.json(path)
    weights_path = release.find("sae.safetensors")
    held = read_safetensors(weights_path)
    weights = PublishedTensors(weights_path, held)
    W_enc = weights.take("encoder.weight", (None, None)).T.contiguous()
    d_model, n_latents = W_enc.shape
    transcode = settings.take("transcode", False, kind=bool, why=_WHY)
    skip = settings.take("skip_connection", False, kind=bool, why=_WHY)
    activation = settings.take("activation", "topk", known=tuple(_ARCHITECTURES), why=_WHY)
    k = require_k(path, settings.take("k", 32, kind=int, why=_WHY), n_latents)
    if activation == "groupmax" and n_latents % k:
        raise ReadingError(
            f"{path}: k is {k}, expected a divisor of {n_latents}, because groupmax makes k equal groups"
        )
    if settings.note("signed", False):
        raise ReadingError(f"{path}: signed is true, expected false: latents could be negative, which no table defines")
    require_size(path, "d_in", settings.note("d_in"), d_model)
    require_size(path, "num_latents", settings.note("num_latents") or None, n_latents)
    for key in ("expansion_factor", "normalize_decoder", "multi_topk"):  # change training alone
        settings.note(key)
    sae = Sae(
        _ARCHITECTURES[activation],
        W_enc=W_enc,
        b_enc=weights.take("encoder.bias", (n_latents,)),
        W_dec=weights.take("W_dec", (n_latents, d_model)),
        b_dec=weights.take("b_dec", (d_model,)),
        k=k,
        is_transcoder=transcode,
        subtracts_b_dec=not transcode,
        W_skip=weights.take("W_skip", (d_model, d_model)).T.contiguous() if skip else None,
    )
    weights.require_all_taken()
    narrow = held["W_dec"].dtype
    widest = max(torch.finfo(tensor.dtype).bits for tensor in held.values())
    rounds = torch.finfo(narrow).bits < widest
    note = f"weights are read as stored; {_VERSION} would round all of them to {narrow}, the format of W_dec"
    name = release.folder.resolve().name
    return Read(sae, hook=name if "layers." in name or "h." in name else None, notes=(note,) if rounds else ())


SPARSIFY = PublishedFormat("sparsify", read_sparsify, ("cfg.json", "sae.safetensors"), _VERSION)
