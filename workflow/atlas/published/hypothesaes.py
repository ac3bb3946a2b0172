"""HypotheSAEs: one torch file with ``config`` and ``state_dict``. Compared with hypothesaes 2.0.1."""

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, read_torch, tensors_of
from atlas.published.weights import PublishedTensors, require_k, require_size
from atlas.training.sae import Sae

_VERSION = "hypothesaes 2.0.1"


def read_hypothesaes(release: Release) -> Read:
    """HypotheSAEs: top-k, or with ``use_batch_topk`` what exceeds the file's threshold, as in its evaluation mode."""
    path = release.find("SAE_*.pt", "*.pt")
    found = read_torch(path)
    if not isinstance(found, dict) or set(found) != {"config", "state_dict"}:
        held = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ReadingError(f"{path}: holds {held}, expected config and state_dict")
    settings = release.mapping(path, found["config"])
    weights = PublishedTensors(path, tensors_of(path, found["state_dict"], "state_dict."))
    W_enc = weights.take("encoder.weight", (None, None)).T.contiguous()
    d_model, n_latents = W_enc.shape
    require_size(path, "input_dim", settings.note("input_dim"), d_model)
    require_size(path, "m_total_neurons", settings.note("m_total_neurons"), n_latents)
    by_threshold = settings.take("use_batch_topk", False, kind=bool, why=f"as {_VERSION} does")
    threshold = weights.number("threshold")  # present always, used with use_batch_topk alone
    if by_threshold and threshold < 0:
        raise ReadingError(f"{path}: threshold is {threshold:g}, expected 0 or more")
    for key in ("aux_k", "multi_k", "dead_neuron_threshold_steps", "prefix_lengths"):  # change training alone
        settings.note(key)
    k = require_k(path, settings.take("k_active_neurons", kind=int), n_latents)
    sae = Sae(
        "batch_topk" if by_threshold else "topk",
        W_enc=W_enc,
        b_enc=weights.take("neuron_bias", (n_latents,)),
        W_dec=weights.take("decoder.weight", (d_model, n_latents)).T.contiguous(),
        b_dec=weights.take("input_bias", (d_model,)),
        k=k,
        threshold=threshold if by_threshold else None,
    )
    weights.require_all_taken()
    return Read(sae, l0=k)


HYPOTHESAES = PublishedFormat("hypothesaes", read_hypothesaes, ("SAE_*.pt",), _VERSION)
