"""Files of labelled activations: one per model, made once, read for every SAE."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atlas.config.downstream import Probing
from atlas.corpora.encoding import make_encoder
from atlas.errors import StoreError
from atlas.files import atomic_path
from atlas.models.load import LoadedModel
from atlas.probing.datasets import opened, read_datasets
from atlas.probing.last_token import framed_ids, last_token_rows

_REMEDY = "delete this file and run again"


@dataclass(frozen=True)
class LabelledRows:
    """One hook's rows of one set of texts, and a label each (classes of a data set: 0 and 1; letters: 0 to 25)."""

    rows: Float[Tensor, "n d_model"]
    labels: Tensor


def write_rows(
    path: Path, groups: Mapping[str, Mapping[str, Tensor]], labels: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write rows (group → hook → (n, d_model)) with each group's labels; `facts` are kept as JSON."""
    tensors = {f"{group}/{hook}": rows.contiguous() for group, hooks in groups.items() for hook, rows in hooks.items()}
    tensors |= {f"{group}/labels": values.contiguous() for group, values in labels.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"facts": json.dumps(facts, ensure_ascii=False)})


def read_facts(path: Path) -> dict[str, Any]:
    """What `write_rows` was told; raises StoreError for another or a damaged file."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: missing, truncated or not a file of labelled rows ({error!r}); {_REMEDY}") from error


def read_rows(path: Path, group: str, hook: str) -> LabelledRows:
    """One group at one hook, float32; raises StoreError when it is not there or not finite."""
    try:
        with safe_open(path, "pt") as file:
            rows, labels = file.get_tensor(f"{group}/{hook}").float(), file.get_tensor(f"{group}/labels")
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: no rows of {group!r} at {hook} ({error}); {_REMEDY}") from error
    if not bool(rows.isfinite().all()):
        raise StoreError(f"{path}: rows of {group!r} at {hook} are not finite; audit the model")
    return LabelledRows(rows, labels)


def make_probe_rows(
    loaded: LoadedModel, model_folder: Path, hooks: Sequence[str], settings: Probing, source: Path, target: Path
) -> None:
    """Run every prompt through the model once and keep what is at its last token, for all hooks."""
    encoder = make_encoder(model_folder, "plain")
    groups, labels, classes = {}, {}, {}
    with opened(settings, source) as folder:
        for prompts in read_datasets(settings, folder):
            ids = framed_ids(encoder, prompts.texts, settings.max_tokens)
            groups[prompts.name] = last_token_rows(loaded, ids, hooks, len(encoder.suffix), prompts.name)
            labels[prompts.name] = torch.from_numpy(prompts.labels.astype("int64"))
            classes[prompts.name] = list(prompts.classes)
    identity = {key: loaded.identity[key] for key in ("name", "weights_sha256", "tokenizer_sha256")}
    write_rows(target, groups, labels, {"datasets": list(groups), "classes": classes, "model": identity})
