"""sparsify (EleutherAI): `sae.safetensors` and `cfg.json`, for its one kind of sparse coder, TopK per row."""

from pathlib import Path

from safetensors.torch import save_file

from atlas.export.layout import OTHER_FORM
from atlas.export.source import TrainedSae
from atlas.files import atomic_path, write_plain_json
from atlas.training.architectures import INFERENCE
from atlas.training.sae import Sae

WEIGHTS_FILE, CONFIG_FILE = "sae.safetensors", "cfg.json"


def refusal(sae: Sae) -> str | None:
    """Return why sparsify cannot hold this SAE; None: it can."""
    if not sae.has_our_form:
        return OTHER_FORM
    if sae.architecture != "topk":
        passing = "above a threshold" if INFERENCE[sae.architecture].has_threshold else "that pass"
        return (
            f"sparsify's encoder always takes the k largest latents of a row; {sae.architecture} keeps all {passing}, "
            "more in one row and fewer in another, and would come out as a different SAE"
        )
    if sae.d_target != sae.d_model:
        return f"sparsify reads and reconstructs rows of one width; these have {sae.d_model} and {sae.d_target}"
    return None


def write(trained: TrainedSae, folder: Path) -> None:
    """Write weights and configuration."""
    sae = trained.sae
    tensors = {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    write_plain_json(
        folder / CONFIG_FILE,
        {
            "d_in": sae.d_model,
            "num_latents": sae.n_latents,
            "k": sae.k,
            "activation": "topk",
            "normalize_decoder": True,
            "multi_topk": False,
            "skip_connection": False,
            "transcode": sae.is_transcoder,
        },
    )
