"""Activations of a reader's own texts, at any hooks, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.corpora.encoding import make_encoder
from atlas.errors import SourceError
from atlas.models.forward import capture, require_positions
from atlas.models.load import LoadedModel
from atlas.token_text import texts_inside


@dataclass(frozen=True, eq=False)
class TextRows:
    """One text at one hook: a row per token, float32.

    `counted` says which tokens are of the text: not those that the tokenizer puts around one, which tables leave out.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    counted: Bool[np.ndarray, " tokens"]
    rows: Float[Tensor, "tokens d_model"]


def read_texts(
    loaded: LoadedModel, folder: Path, texts: Sequence[str], hooks: Sequence[str]
) -> dict[str, list[TextRows]]:
    """Rows of every text at every hook, one pass a text: (hook → one entry per text, in their order).

    `folder` is the prepared model's. Each text stands alone, as in the corpora with template `plain`. Raises
    SourceError for a text without a token, AtlasError for one that is longer than the model's positions.
    """
    encoder = make_encoder(folder, "plain")
    found: dict[str, list[TextRows]] = {hook: [] for hook in hooks}
    for text, encoded in zip(texts, cast(list[list[int]], encoder.encode(list(texts))), strict=True):
        body = encoded[:-1]  # without the separator of documents
        if not body:
            raise SourceError(f"text {text[:60]!r} has no token; leave it out")
        ids = [*encoder.prefix, *body, *encoder.suffix]
        require_positions(loaded, len(ids))
        spelled = texts_inside(encoder.tokenizer, [[index] for index in ids])
        counted = np.array([index not in encoder.not_counted for index in ids])
        captured = capture(loaded, torch.tensor([ids], device=loaded.device), hooks)
        for hook, rows in captured.items():
            found[hook].append(TextRows(text, ids, spelled, counted, rows[0].float().cpu()))
    return found
