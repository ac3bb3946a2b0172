"""Load a prepared model: fixed, in evaluation mode, with its tokenizer and its adapter."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging as transformers_logging

from atlas.devices import DTYPES
from atlas.errors import SourceError
from atlas.files import sha256_file, sha256_strings
from atlas.models.adapters import Adapter, find_adapter
from atlas.models.widened import widen_products
from atlas.prepared import verified_identity
from atlas.sources.tokenizer import load_saved_tokenizer

log = logging.getLogger(__name__)

MODEL_CLASSES = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "masked_lm": transformers.AutoModelForMaskedLM,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "embedding": transformers.AutoModel,
}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is only read: no gradients, no dropout. `identity` is the prepared folder's identity.json."""

    model: transformers.PreTrainedModel = field(repr=False)
    tokenizer: transformers.PreTrainedTokenizerBase = field(repr=False)
    adapter: Adapter = field(repr=False)
    identity: dict[str, Any]
    device: torch.device

    @property
    def base(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the forward pass."""
        return DTYPES[self.identity["dtype"]]

    @property
    def objective(self) -> str:
        """Return what the model computes: causal_lm, masked_lm, sequence_classification or embedding."""
        return self.identity["objective"]


@dataclass(frozen=True)
class PlantedModel:
    """In the place of a model where activations were drawn: there is nothing to run, hence no output and no loss."""

    identity: dict[str, Any]
    device: torch.device
    objective: str = "none"


def load_subject(folder: Path, device: torch.device) -> LoadedModel | PlantedModel:
    """The model whose rows are judged, or what stands for it where they were drawn. Raises SourceError as below."""
    identity = verified_identity(Path(folder))
    return PlantedModel(identity, device) if identity["objective"] == "none" else load_model(folder, device)


def load_model(folder: Path, device: torch.device) -> LoadedModel:
    """Load what `prepare_model` saved in `folder`.

    Raises SourceError when the folder is not such a folder, is that of a planted model, or its files are no longer
    those that were saved: they are hashed each time, because a model with a flipped bit runs as well as any.
    """
    folder = Path(folder)
    identity = verified_identity(folder)
    if identity["objective"] == "none":
        raise SourceError(
            f"{folder}: {identity['name']!r} is planted: its rows are drawn, there is no language model and no text, "
            "hence no losses, contexts, labels or probes; ask for these of a model that reads text"
        )
    if (found := hash_weights(folder)) != identity["weights_sha256"]:
        raise SourceError(
            f"{folder}/*.safetensors: SHA-256 {found}, but identity.json says {identity['weights_sha256']}: "
            "truncated or altered; delete the folder and run again"
        )
    with quiet_bars():
        model = MODEL_CLASSES[identity["objective"]].from_pretrained(
            folder,
            dtype=DTYPES[identity["dtype"]],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    model = model.to(device).eval().requires_grad_(False)
    log.info("model: %s (%s, %s) on %s", identity["name"], identity["architecture"], identity["dtype"], device)
    if widen_products(model, device):
        log.info("this CPU has no bfloat16 instructions: matrix products are taken in float32 and rounded to bfloat16")
    return LoadedModel(model, load_tokenizer(folder), find_adapter(model.config.model_type), identity, device)


def in_float32(loaded: LoadedModel) -> LoadedModel:
    """The same weights with all arithmetic in float32, as a copy: what is small beside a state is not rounded away.

    Its outputs differ from those of a bfloat16 model by that model's rounding. A float32 model is returned as it is.
    """
    if loaded.dtype == torch.float32:
        return loaded
    model = copy.deepcopy(loaded.model)
    for module in model.modules():  # products that `widen_products` widens are wide already
        module.__dict__.pop("forward", None)
    return replace(loaded, model=model.float(), identity={**loaded.identity, "dtype": "float32"})


def load_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a prepared model; needs no weights."""
    verified_identity(folder)
    return load_saved_tokenizer(folder)


def hash_weights(folder: Path) -> str:
    """SHA-256 over the hashes of a folder's safetensors files, in the order of their names."""
    return sha256_strings(sha256_file(path) for path in sorted(folder.glob("*.safetensors")))


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without progress bars of the library, which fill a log with thousands of lines."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
