"""The text behind codes: classes, documents and first positions of the counted rows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Real
from jaxtyping import Integer as Int

from atlas.codes.store import Codes
from atlas.errors import EvaluationError
from atlas.latents.token_classes import CLASSES, TokenTable
from atlas.statistics.clusters import Groups


@dataclass(frozen=True, eq=False)
class CorpusText:
    """Rows of a corpus as its codes hold them; `role` is in_sample, proxy or oos."""

    name: str
    role: str
    fingerprint: str
    context_length: int
    tokens: Int[np.ndarray, " rows"]
    document: Int[np.ndarray, " rows"]
    counted: Bool[np.ndarray, " rows"]
    massive: Bool[np.ndarray, " rows"]
    classes: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, codes: Codes, role: str, table: TokenTable, min_tokens: int) -> "CorpusText":
        """Raises EvaluationError when the corpus has fewer than `min_tokens` counted tokens."""
        name, found = str(codes.identity["corpus"]), int(codes.counted.sum())
        if found < min_tokens:
            raise EvaluationError(
                f"{codes.path}: corpus {name!r} has {found:,} counted tokens, latents.min_tokens is {min_tokens:,}: "
                "what latents do on so few says nothing; raise eval_tokens of the model, or lower latents.min_tokens"
            )
        return cls(
            name,
            role,
            str(codes.identity["corpus_fingerprint"]),
            codes.context_length,
            codes.tokens,
            codes.document,
            codes.counted,
            codes.massive,
            table.of_tokens(codes.tokens),
        )

    @cached_property
    def n_tokens(self) -> int:
        """Number of counted rows, T."""
        return int(self.counted.sum())

    @cached_property
    def first(self) -> Bool[np.ndarray, " rows"]:
        """The first counted row of each context."""
        counted = self.counted.reshape(-1, self.context_length)
        first = np.zeros_like(counted)
        first[np.arange(len(counted)), counted.argmax(1)] = True
        return (first & counted).reshape(-1)

    @cached_property
    def groups(self) -> Groups:
        """Groups of documents for intervals and halves."""
        return Groups.of(self.document[self.counted])

    @cached_property
    def group(self) -> Int[np.ndarray, " rows"]:
        """Group of each row's document; of no meaning where a row is not counted."""
        return self.groups.index(self.document)

    @cached_property
    def tokens_of_group(self) -> Int[np.ndarray, " groups"]:
        """Counted rows of each group of documents."""
        return np.bincount(self.group[self.counted], minlength=self.groups.count)

    @cached_property
    def base_rates(self) -> dict[str, float]:
        """Share of each class among the counted rows, and of first positions."""
        shares = np.bincount(self.classes[self.counted], minlength=len(CLASSES)) / max(1, self.n_tokens)
        return dict(zip(CLASSES, shares.tolist(), strict=True)) | {"first": float(self.first.sum() / self.n_tokens)}


def piece_begins(document: Int[np.ndarray, " rows"], context_length: int) -> Int[np.ndarray, " pieces"]:
    """First row of every stretch of one document in one context, from the document of each row of whole contexts."""
    new = np.append(True, np.diff(document) != 0) | (np.arange(len(document)) % context_length == 0)
    return np.flatnonzero(new)


def ratio(above: Real[np.ndarray, "..."] | float, below: Real[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """Divide with the rules of broadcasting; NaN where `below` is 0."""
    below = np.asarray(below, np.float64)
    return np.divide(
        above, below, out=np.full(np.broadcast_shapes(np.shape(above), below.shape), np.nan), where=below > 0
    )
