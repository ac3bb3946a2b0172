"""Find a latent's top contexts, one per document."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.codes.store import LatentEntries
from atlas.latents.text import CorpusText


class Blocks(Protocol):
    """Codes of real or of planted latents."""

    def blocks(self) -> Iterator[LatentEntries]:
        """All latents in order, some at a time."""
        ...


@dataclass(frozen=True, eq=False)
class TopContexts:
    """Rows on which each latent fires most, strongest first, −1 where it fires in fewer documents than that."""

    row: Int[np.ndarray, "n_latents n_contexts"]
    value: Float[np.ndarray, "n_latents n_contexts"]

    @property
    def n_contexts(self) -> Int[np.ndarray, " n_latents"]:
        """Return how many contexts each latent has."""
        return (self.row >= 0).sum(1)


def top_contexts(codes: Blocks, text: CorpusText, n_contexts: int) -> TopContexts:
    """Return the `n_contexts` strongest firings of each latent, one per document.

    Counted rows without massive activations only: by default no SAE learns those, and one with a threshold answers them
    with most of its latents, stronger than any text. Of equal activations the earlier row comes first.
    """
    regular = text.counted & ~text.massive
    parts = [_top(block.only(regular[block.row]), text, n_contexts) for block in codes.blocks()]
    return TopContexts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _top(entries: LatentEntries, text: CorpusText, n_contexts: int) -> tuple[np.ndarray, np.ndarray]:
    row, value = np.full((entries.n_latents, n_contexts), -1), np.zeros((entries.n_latents, n_contexts), np.float32)
    order = np.lexsort((entries.row, -entries.value, entries.latent))
    latent, document = entries.latent[order], text.document[entries.row[order]].astype(np.int64)
    _, strongest = np.unique(latent.astype(np.int64) << 32 | (document + 1), return_index=True)
    chosen = np.sort(strongest)  # back in order of latent and activation
    latent, order = latent[chosen], order[chosen]
    begins = np.searchsorted(latent, np.arange(entries.n_latents))
    rank = np.arange(len(latent)) - begins[latent]
    kept = rank < n_contexts
    row[latent[kept], rank[kept]] = entries.row[order[kept]]
    value[latent[kept], rank[kept]] = entries.value[order[kept]]
    return row, value
