"""Windows: the evaluation corpora cut into pieces of equal length, each of one document; and who fires in which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.codes.store import Codes
from atlas.errors import EvaluationError
from atlas.latents.text import piece_begins
from atlas.statistics.clusters import Groups

_TRAIN_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Windows:
    """Whole windows of several corpora, in the order of the text; windows that repeat earlier ones are left out.

    `start` is the first row in its corpus, `document` counts on from corpus to corpus. A document's last tokens, less
    than a window, are in none: windows of unequal length would tell by their length alone whether a latent fires.
    """

    width: int
    corpora: tuple[str, ...]
    corpus: Int[np.ndarray, " windows"]
    start: Int[np.ndarray, " windows"]
    document: Int[np.ndarray, " windows"]
    tokens: Int[np.ndarray, "windows width"]
    counted: Bool[np.ndarray, "windows width"]
    n_rows: tuple[int, ...]

    @classmethod
    def of(cls, codes: Mapping[str, Codes], width: int) -> "Windows":
        """Of the corpora whose codes these are. Raises EvaluationError when no document has a whole window."""
        parts, begin = [], 0
        for number, own in enumerate(codes.values()):
            starts = _starts(own, width)
            places = starts[:, None] + np.arange(width)
            same = np.unique(own.document, return_inverse=True)[1]
            parts.append(
                {
                    "corpus": np.full(len(starts), number),
                    "start": starts,
                    "document": begin + same[starts],
                    "tokens": own.tokens[places].astype(np.int64),
                    "counted": own.counted[places],
                }
            )
            begin += int(same.max(initial=-1)) + 1
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if not len(columns["start"]):
            raise EvaluationError(
                f"corpora {', '.join(codes)}: no document has {width} tokens in one context, autointerp.window_tokens; "
                "make windows shorter, or contexts longer"
            )
        first = np.sort(np.unique(columns["tokens"], axis=0, return_index=True)[1])
        columns = {name: values[first] for name, values in columns.items()}
        return cls(width, tuple(codes), n_rows=tuple(own.n_rows for own in codes.values()), **columns)

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def groups(self) -> Groups:
        """Groups of documents, for intervals."""
        return Groups.of(np.unique(self.document))

    @cached_property
    def group(self) -> Int[np.ndarray, " windows"]:
        """Group of each window's document."""
        return self.groups.index(self.document)

    def training(self, seed: int) -> Bool[np.ndarray, " windows"]:
        """Return which windows an explainer may see: those of half of each corpus' documents. The others test its
        labels.
        """
        generator = np.random.Generator(np.random.PCG64([seed, 2]))
        chosen: list[np.ndarray] = []
        for number in range(len(self.corpora)):
            documents = np.unique(self.document[self.corpus == number])
            chosen.append(generator.permutation(documents)[: round(_TRAIN_SHARE * len(documents))])
        return np.isin(self.document, np.concatenate(chosen))

    @cached_property
    def of_row(self) -> tuple[Int[np.ndarray, " rows"], ...]:
        """For each corpus the window of each row, −1 where it is in none."""
        found = []
        for number, n_rows in enumerate(self.n_rows):
            window, own = np.full(n_rows, -1, np.int64), np.flatnonzero(self.corpus == number)
            window[self.start[own][:, None] + np.arange(self.width)] = own[:, None]
            found.append(window)
        return tuple(found)


def _starts(codes: Codes, width: int) -> Int[np.ndarray, " windows"]:
    """First rows of the whole windows of every stretch of one document in one context."""
    begins = piece_begins(codes.document, codes.context_length)
    whole = np.diff(np.append(begins, codes.n_rows)) // width
    first = np.repeat(np.cumsum(whole) - whole, whole)
    return np.repeat(begins, whole) + width * (np.arange(whole.sum()) - first)


@dataclass(frozen=True, eq=False)
class WindowFirings:
    """Firings of latents `first` to `first + n_latents - 1`, sorted by latent, window and place in the window.

    `n_counted` are each latent's firings on counted rows, in windows or not.
    """

    first: int
    n_latents: int
    n_counted: Int[np.ndarray, " n_latents"]
    latent: Int[np.ndarray, " entries"]
    window: Int[np.ndarray, " entries"]
    place: Int[np.ndarray, " entries"]
    value: Float[np.ndarray, " entries"]


def firings(codes: Sequence[Codes], windows: Windows, max_entries: int = 2**22) -> Iterator["WindowFirings"]:
    """All latents in order, some at a time: what fires inside windows. One pass over all codes.

    On counted rows without massive activations, as in `top_contexts`.
    """
    totals, start = np.cumsum(sum(own.n_firings.astype(np.int64) for own in codes)), 0
    while start < len(totals):
        before = totals[start - 1] if start else 0
        stop = max(int(np.searchsorted(totals, before + max_entries, side="right")), start + 1)
        yield _firings(codes, windows, start, stop)
        start = stop


def _firings(codes: Sequence[Codes], windows: Windows, start: int, stop: int) -> WindowFirings:
    parts, n_counted = [], np.zeros(stop - start, np.int64)
    for own, of_row in zip(codes, windows.of_row, strict=True):
        block = own.latents(start, stop)
        n_counted += np.diff(block.only(own.counted[block.row]).indptr)
        block = block.only(own.regular[block.row] & (of_row[block.row] >= 0))
        window = of_row[block.row]
        parts.append((block.latent, window, block.row - windows.start[window], block.value))
    latent, window, place, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # Corpora follow each other, and rows rise within each: by latent alone, everything is in order.
    order = np.argsort(latent, kind="stable")
    return WindowFirings(start, stop - start, n_counted, latent[order], window[order], place[order], value[order])
