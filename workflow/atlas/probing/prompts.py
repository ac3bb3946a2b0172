"""Labelled prompts through a model: what stands at their last token, at all hooks."""

from collections.abc import Sequence
from pathlib import Path

import torch

from atlas.config.downstream import Probing
from atlas.corpora.encoding import make_encoder
from atlas.models.load import LoadedModel, load_model
from atlas.probing.datasets import opened, read_datasets
from atlas.probing.last_token import framed_ids, last_token_rows
from atlas.probing.rows import write_rows


def read_prompts(
    model: Path, source: Path, hooks: Sequence[str], settings: Probing, device: torch.device, target: Path
) -> None:
    """Write the rows of labelled prompts (see `make_probe_rows`) of a prepared model."""
    make_probe_rows(load_model(model, device), model, hooks, settings, source, target)


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
