"""Transcoders of circuit-tracer: ``layer_<n>.safetensors``, one file a layer. Compared with circuit-tracer 0.5.0."""

import re

from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, read_safetensors
from atlas.published.weights import PublishedTensors, require_thresholds
from atlas.training.sae import Sae

_VERSION = "circuit-tracer 0.5.0"
_THRESHOLD = "activation_function.threshold"
_LAYER = re.compile(r"layer_(\d+)\.safetensors")


def read_circuit_tracer(release: Release) -> Read:
    """circuit-tracer: ReLU, or JumpReLU where the file has thresholds; with or without a skip connection.

    Hooks are in the collection's config.yaml and not in the file: state hook and target_hook.
    """
    path = release.find("layer_*.safetensors")
    weights = PublishedTensors(path, read_safetensors(path))
    encoder = weights.take("W_enc", (None, None))
    n_latents, d_model = encoder.shape
    W_dec = weights.take("W_dec", (n_latents, None))
    has_threshold = _THRESHOLD in weights
    thresholds = {}
    if has_threshold:
        thresholds["thresholds"] = require_thresholds(path, _THRESHOLD, weights.take(_THRESHOLD, (n_latents,)))
    sae = Sae(
        "jumprelu" if has_threshold else "relu",
        W_enc=encoder.T.contiguous(),
        b_enc=weights.take("b_enc", (n_latents,)),
        W_dec=W_dec,
        b_dec=weights.take("b_dec", (W_dec.shape[1],)),
        latent_parameters=thresholds,
        is_transcoder=True,
        W_skip=weights.take("W_skip", (W_dec.shape[1], d_model)).T.contiguous() if "W_skip" in weights else None,
    )
    weights.require_all_taken()
    layer = _LAYER.fullmatch(path.name)
    return Read(sae, context={"layer": int(layer[1]) if layer else None})


CIRCUIT_TRACER = PublishedFormat("circuit_tracer", read_circuit_tracer, ("layer_*.safetensors",), _VERSION)
