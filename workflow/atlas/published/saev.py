"""saev: one file, a line of JSON and then a torch file. Compared with saev 0.1.0."""

import io

from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, read_json_line, read_torch, tensors_of
from atlas.published.weights import PublishedTensors, require_size
from atlas.training.sae import Sae

_VERSION = "saev 0.1.0"


def read_saev(release: Release) -> Read:
    """saev: ReLU; b_dec is subtracted before encoding."""
    path = release.find("*.pt")
    described, start = read_json_line(path)
    settings = release.mapping(path, described)
    found = read_torch(path, io.BytesIO(path.read_bytes()[start:]))
    weights = PublishedTensors(path, tensors_of(path, found))
    W_enc = weights.take("W_enc", (None, None))
    d_model, n_latents = W_enc.shape
    require_size(path, "d_vit", settings.note("d_vit"), d_model)
    factor = settings.note("exp_factor")
    require_size(path, "d_vit · exp_factor", None if factor is None else d_model * factor, n_latents)
    sae = Sae(
        "relu",
        W_enc=W_enc,
        b_enc=weights.take("b_enc", (n_latents,)),
        W_dec=weights.take("W_dec", (n_latents, d_model)),
        b_dec=weights.take("b_dec", (d_model,)),
    )
    weights.require_all_taken()
    return Read(sae)


SAEV = PublishedFormat("saev", read_saev, ("*.pt",), _VERSION)
