"""Embedded windows of a corpus: what a row stands in, embedded once for all latents of all SAEs. docs/metrics.md, 6.

A window for every row would be embedded dozens of times over; one for every half window is shared by its rows, and a
row is never further than a quarter of a window from the middle of its own.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.activations.store import Shard, open_shards
from atlas.errors import DamagedFileError, EvaluationError
from atlas.files import AGAIN
from atlas.hdf5 import new_hdf5, open_sealed
from atlas.latents.embedder import SentenceEmbedder, embedder_sha256
from atlas.latents.text import piece_begins
from atlas.models.load import load_tokenizer

log = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "sae-atlas-windows", 1

Embed = Callable[[Sequence[str]], Float[np.ndarray, "texts width"]]


@dataclass(frozen=True, eq=False)
class Grid:
    """Windows over the rows of a corpus: `centre` and `piece` (first row, row after the last) of each, and the window
    of each row. A window holds the rows at most `width` from its centre, in one context and one document.
    """

    width: int
    centre: Int[np.ndarray, " windows"]
    piece: Int[np.ndarray, "windows 2"]
    window: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, document: Int[np.ndarray, " rows"], context_length: int, width: int) -> "Grid":
        """`document` of each row of whole contexts in their order."""
        row, begins = np.arange(len(document)), piece_begins(document, context_length)
        ends = np.append(begins[1:], len(row))
        of_row = np.searchsorted(begins, row, side="right") - 1
        first = (row - begins[of_row]) % width == 0
        start, piece = row[first], of_row[first]
        centre = np.minimum(start + width // 2, ends[piece] - 1)
        return cls(width, centre, np.stack([begins[piece], ends[piece]], axis=1), np.cumsum(first) - 1)

    def rows(self, window: int) -> slice:
        """The rows of a window."""
        centre, (begin, end) = self.centre[window], self.piece[window]
        return slice(int(max(begin, centre - self.width)), int(min(end, centre + self.width + 1)))


def run_embedding(
    model: Path, shards: list[Path], embedder: Path, width: int, device: torch.device, target: Path
) -> None:
    """Write the windows of shards of a corpus (see `embed_windows`), embedded by a prepared embedder."""
    embed = SentenceEmbedder.load(embedder, device)
    embed_windows(open_shards(shards), load_tokenizer(model), embed, embedder_sha256(embedder), width, target)


def embed_windows(
    shards: Sequence[Shard], tokenizer: Any, embed: Embed, embedder: str, width: int, target: Path
) -> None:
    """Embed the counted tokens of every window of a corpus (eval shards in order) and write them as HDF5.

    `embedder` names the weights. A window without a counted token has the vector 0: no latent is looked at there.
    """
    tokens, document, counted = (
        np.concatenate([getattr(shard, name) for shard in shards]) for name in ("tokens", "document", "counted")
    )
    grid = Grid.of(document, shards[0].context_length, width)
    texts = window_texts(grid, tokens, counted, tokenizer)
    filled = [index for index, text in enumerate(texts) if text]
    embedded = embed([texts[index] for index in filled])
    vectors = np.zeros((len(texts), embedded.shape[1]), np.float32)
    vectors[filled] = embedded
    log.info("%s windows of %s rows embedded", f"{len(filled):,}", f"{len(tokens):,}")
    identity = {key: shards[0].identity[key] for key in ("corpus", "corpus_fingerprint", "tokenizer_sha256")}
    with new_hdf5(target) as file:
        file.create_dataset("vectors", data=vectors, fletcher32=True)
        file.create_dataset("window", data=grid.window, fletcher32=True)
        file.attrs.update(identity | {"embedder": embedder, "width": width})
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION})


def window_texts(
    grid: Grid, tokens: Int[np.ndarray, " rows"], counted: Bool[np.ndarray, " rows"], tokenizer: Any
) -> list[str]:
    """The counted tokens of each window as text."""
    texts = []
    for window in range(len(grid.centre)):
        rows = grid.rows(window)
        ids = tokens[rows][counted[rows]].tolist()
        texts.append(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return texts


@dataclass(frozen=True, eq=False)
class EmbeddedWindows:
    """Unit vectors of a corpus' windows, and the window of each row."""

    vectors: Float[np.ndarray, "windows width"]
    window: Int[np.ndarray, " rows"]

    @classmethod
    def open(cls, path: Path, expected: dict[str, Any], n_rows: int) -> "EmbeddedWindows":
        """Read what `embed_windows` wrote; `expected` are attributes that must match.

        Raises EvaluationError that names the file when it is damaged, of another format, or of something else.
        """
        try:
            with open_sealed(path) as file:
                attributes = {
                    key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
                }
                found = (attributes.get("format"), attributes.get("format_version"))
                if found != (FORMAT, FORMAT_VERSION):
                    raise EvaluationError(f"{path}: format is {found}, expected {(FORMAT, FORMAT_VERSION)}; {AGAIN}")
                vectors, window = file["vectors"][:], file["window"][:]
        except DamagedFileError as error:
            raise EvaluationError(str(error)) from error
        for key, value in (expected | {"rows": n_rows}).items():
            actual = len(window) if key == "rows" else attributes.get(key)
            if actual != value:
                raise EvaluationError(f"{path}: {key} is {actual!r}, but the codes have {value!r}; {AGAIN}")
        return cls(vectors, window)

    def of(self, rows: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape width"]:
        """The vector of each row's window; zeros for row −1."""
        rows = np.asarray(rows)
        return np.where(rows[..., None] >= 0, self.vectors[self.window[np.maximum(rows, 0)]], 0)
