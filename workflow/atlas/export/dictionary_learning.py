"""dictionary_learning: `ae.pt`, a state dict, and `config.json`, which names the class that holds it.

Shapes and names are those of its classes (dictionary.py and trainers/ of version 0.1.0); its loader,
`utils.load_dictionary`, takes the class from `trainer.dict_class`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas.errors import ExportError
from atlas.export.layout import OTHER_FORM
from atlas.export.source import TrainedSae
from atlas.files import atomic_path, write_plain_json
from atlas.hook_points import HookPoint
from atlas.training.sae import Sae

WEIGHTS_FILE, CONFIG_FILE = "ae.pt", "config.json"


@dataclass(frozen=True)
class _Class:
    """A class of the peer: its name, and the tensors of its state dict."""

    name: str
    state: Callable[[TrainedSae], Mapping[str, Tensor]]


def _linear(sae: Sae) -> dict[str, Tensor]:
    """Weights of its nn.Linear layers, (out, in)."""
    return {"encoder.weight": sae.W_enc.T, "decoder.weight": sae.W_dec.T}


def _selection(sae: Sae) -> dict[str, Tensor]:
    """K, and the threshold; −1, its own mark for none, makes `use_threshold=True` keep every positive latent."""
    threshold = -1.0 if sae.threshold is None else sae.threshold
    return {"k": torch.tensor(sae.k, dtype=torch.int), "threshold": torch.tensor(threshold, dtype=torch.float32)}


def _topk(trained: TrainedSae) -> dict[str, Tensor]:
    sae = trained.sae
    return _linear(sae) | {"encoder.bias": sae.b_enc, "b_dec": sae.b_dec} | _selection(sae)


def _matryoshka(trained: TrainedSae) -> dict[str, Tensor]:
    sae = trained.sae
    weights = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    return weights | _selection(sae) | {"group_sizes": torch.tensor(group_sizes(trained))}


def group_sizes(trained: TrainedSae) -> list[int]:
    """Latents of each nested group, from the shares on the run card, rounded as training rounds them."""
    shares = (trained.card.get("sae") or {}).get("group_fractions")
    if not shares:
        raise ExportError(
            f"{trained.folder}: the run card does not give sae.group_fractions, and dictionary_learning needs the "
            "sizes of the groups; export from the full card"
        )
    sizes = [int(share * trained.sae.n_latents) for share in shares[:-1]]
    return [*sizes, trained.sae.n_latents - sum(sizes)]


def _relu(trained: TrainedSae) -> dict[str, Tensor]:
    return _linear(trained.sae) | {"encoder.bias": trained.sae.b_enc, "bias": trained.sae.b_dec}


def _gated(trained: TrainedSae) -> dict[str, Tensor]:
    sae, own = trained.sae, trained.sae.latent_parameters
    biases = {"gate_bias": sae.b_enc, "mag_bias": own["b_mag"], "decoder_bias": sae.b_dec}
    return _linear(sae) | {"r_mag": own["r_mag"]} | biases


def _jumprelu(trained: TrainedSae) -> dict[str, Tensor]:
    """Its class does not subtract b_dec from what it reads, so what that contributes moves into the encoder's bias."""
    sae = trained.sae
    b_enc = sae.b_enc.double() - sae.b_dec.double() @ sae.W_enc.double()
    weights = {"W_enc": sae.W_enc, "b_enc": b_enc.float(), "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    return weights | {"threshold": sae.latent_parameters["thresholds"]}


CLASSES = {
    "topk": _Class("AutoEncoderTopK", _topk),
    "batch_topk": _Class("BatchTopKSAE", _topk),
    "matryoshka_batch_topk": _Class("MatryoshkaBatchTopKSAE", _matryoshka),
    "relu": _Class("AutoEncoder", _relu),
    "gated": _Class("GatedAutoEncoder", _gated),
    "jumprelu": _Class("JumpReluAutoEncoder", _jumprelu),
}


def refusal(sae: Sae) -> str | None:
    """Return why dictionary_learning cannot hold this SAE; None: it can."""
    if sae.is_transcoder:
        return "dictionary_learning has no transcoder: what its dictionaries reconstruct is what they read"
    if sae.architecture not in CLASSES:
        return f"dictionary_learning has no class for architecture {sae.architecture!r}"
    if not sae.has_our_form:
        return OTHER_FORM
    norms = sae.W_dec.norm(dim=1)
    if sae.architecture == "relu" and not torch.allclose(norms, torch.ones_like(norms)):
        return (
            f"decoder rows have norms from {norms.min():.6g} to {norms.max():.6g}; the loader of its AutoEncoder would "
            "bring them to 1 and so change the latents"
        )
    return None


def write(trained: TrainedSae, folder: Path) -> None:
    """Write the state dict and the configuration."""
    entry = CLASSES[trained.sae.architecture]
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in entry.state(trained).items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        torch.save(state, temporary)  # the format: a pickle, though of tensors alone, as weights_only loading asks
    ours = {"model": trained.model_name, "hook": trained.hooks.source}
    write_plain_json(folder / CONFIG_FILE, {"trainer": _trainer(trained, entry.name), "atlas": ours})


def _trainer(trained: TrainedSae, dict_class: str) -> dict[str, Any]:
    """Return what its tools look for; the settings of training are on the run card.

    Tools that read `layer` (SAELens, SAE Bench) take it for the output of that block, whatever `submodule_name` says:
    it is null for every other tensor.
    """
    point = HookPoint.parse(trained.hooks.source)
    if point.site == "resid_pre" and point.layer > 0:
        point = HookPoint(point.layer - 1, "resid_post")  # the same tensor
    return {
        "dict_class": dict_class,
        "activation_dim": trained.sae.d_model,
        "dict_size": trained.sae.n_latents,
        "k": trained.sae.k,
        "layer": point.layer if point.site == "resid_post" else None,
        "submodule_name": f"{point.site}_layer_{point.layer}",
        "lm_name": trained.model_name,
    }
