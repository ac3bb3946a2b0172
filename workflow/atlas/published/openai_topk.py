"""OpenAI's sparse_autoencoder: one torch file. Compared with commit 764586a of its model.py, which has no release."""

from pathlib import Path

from atlas.errors import ReadingError
from atlas.published.base import PublishedFormat, Read
from atlas.published.files import Release, read_torch, tensors_of
from atlas.published.weights import PublishedTensors, require_k
from atlas.training.sae import Sae

_AGAIN = "activation."
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def read_openai(release: Release) -> Read:
    """OpenAI's files: TopK with a layer norm of each row that the reconstruction undoes, or ReLU without one."""
    path = release.find("*.pt")
    found = read_torch(path)
    if not isinstance(found, dict):
        raise ReadingError(f"{path}: holds {type(found).__name__}, expected a state dict")
    found = dict(found)
    described = {key: found.pop(key) for key in ("activation", "activation_state_dict") if key in found}
    # Newer torch writes the activation's state a second time, below its own name.
    again = {key.removeprefix(_AGAIN): found.pop(key) for key in list(found) if str(key).startswith(_AGAIN)}
    if again and again != described.get("activation_state_dict"):
        told = described.get("activation_state_dict")
        raise ReadingError(
            f"{path}: activation.* is {again!r}, but activation_state_dict is {told!r}; expected the same"
        )
    settings = release.mapping(path, described)
    why = "as its loader does"
    activation = settings.take("activation", "ReLU", known=("ReLU", "TopK"), kind=str, why=why)
    weights = PublishedTensors(path, tensors_of(path, found))
    W_enc = weights.take("encoder.weight", (None, None)).T.contiguous()
    d_model, n_latents = W_enc.shape
    tied = "decoder.linear.weight" in weights
    decoder = weights.take("decoder.linear.weight", (n_latents, d_model)).T if tied else weights.take("decoder.weight")
    if tuple(decoder.shape) != (d_model, n_latents):
        raise ReadingError(f"{path}: decoder.weight has shape {tuple(decoder.shape)}, expected {(d_model, n_latents)}")
    sae = Sae(
        "topk" if activation == "TopK" else "relu",
        W_enc=W_enc,
        b_enc=weights.take("latent_bias", (n_latents,)),
        W_dec=decoder.T.contiguous(),
        b_dec=weights.take("pre_bias", (d_model,)),
        k=_k(settings.note("activation_state_dict", {}), path, n_latents) if activation == "TopK" else None,
        # Its loader takes the activation as the sign that rows were normalised.
        row_scale="layer_norm" if activation == "TopK" else None,
    )
    weights.require_all_taken(besides=_STATISTICS)
    return Read(sae)


def _k(state: object, path: Path, n_latents: int) -> int:
    state = state if isinstance(state, dict) else {}
    if (after := state.get("postact_fn")) != "ReLU":
        raise ReadingError(f"{path}: activation_state_dict.postact_fn is {after!r}, expected 'ReLU'")
    k = state.get("k")
    if isinstance(k, bool) or not isinstance(k, int):
        raise ReadingError(f"{path}: activation_state_dict.k is {k!r}, expected a whole number")
    return require_k(path, k, n_latents)


OPENAI = PublishedFormat("openai", read_openai, ("*.pt",), "openai/sparse_autoencoder, model.py at 764586a")
