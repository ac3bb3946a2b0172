"""SAEs and activations from Python, without a workflow: `atlas.open_sae` and `atlas.read_activations`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.errors import ReadingError
from atlas.files import read_plain_json
from atlas.models.forward import capture
from atlas.models.load import LoadedModel, load_model
from atlas.published import FORMATS, read_published
from atlas.training.sae import CONFIG_FILE, Sae, load_sae

log = logging.getLogger(__name__)

# Files by which a folder tells its format; the first set that it holds decides.
_SIGNS = (
    ({"hyperparams.json"}, "llama_scope"),
    ({"cfg.json", "sae.safetensors"}, "sparsify"),
    ({"cfg.json", "sae_weights.safetensors"}, "saelens"),
    ({"config.json", "sae_weights.safetensors"}, "llamascopium"),
    ({"ae.pt"}, "dictionary_learning"),
    ({"params.npz"}, "gemma_scope"),
    ({"params.safetensors"}, "gemma_scope"),
)


def open_sae(place: Path | str, format: str | None = None, stated: Mapping[str, Any] | None = None) -> Sae:
    """Read an SAE from disk: one that was trained here, or one that others published.

    Without `format` the names of its files tell it. `stated` is what the files lack, as `read_published` has it, which
    gives the facts about a published SAE besides. Each default that is assumed is logged as a warning. Raises
    ReadingError or TrainingError that names the file and what was expected.
    """
    place = Path(place)
    if format is None and not stated and _is_ours(place):
        return load_sae(place)
    found = read_published(place, format or _format(place), stated)
    for assumed in found.assumed:
        log.warning("%s: %s", place, assumed)
    return found.sae


def read_activations(
    model: Path | str | LoadedModel, texts: Sequence[str], hook: str
) -> list[Float[Tensor, "position d_model"]]:
    """Activations of each text at a hook such as ``resid_post.10``, float32 on the CPU: what an SAE encodes.

    `model` is a prepared folder (``results/models/<name>``), or what `load_model` gave. Texts are encoded by its
    tokenizer with the special tokens that it adds by itself. Raises SourceError for another folder, ValueError for a
    name that is no hook, and AtlasError for a place that the model does not have.
    """
    loaded = model if isinstance(model, LoadedModel) else load_model(Path(model), torch.device("cpu"))
    found = []
    for text in texts:
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"]], device=loaded.device)
        if ids.numel() == 0:
            raise ReadingError(f"the text {text!r} has no tokens, expected at least one")
        found.append(capture(loaded, ids, [hook])[hook][0].float().cpu())
    return found


def _is_ours(place: Path) -> bool:
    path = place / CONFIG_FILE
    if not path.is_file():
        return False
    config = read_plain_json(path)
    metadata = config.get("metadata") if isinstance(config, dict) else None
    return isinstance(metadata, dict) and "atlas" in metadata


def _format(place: Path) -> str:
    folder = place if place.is_dir() else place.parent
    held = {path.name for path in folder.glob("*")}
    for names, format in _SIGNS:
        if names <= held:
            return format
    raise ReadingError(
        f"{place}: its files ({', '.join(sorted(held)[:8]) or 'none'}) do not tell its format; give format, one of "
        f"{', '.join(FORMATS)}"
    )
