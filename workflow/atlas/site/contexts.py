"""Contexts of a latent: the strongest, some of every stratum of activation, and a histogram of activations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.codes.store import Codes, LatentEntries
from atlas.latents.text import piece_begins

HISTOGRAM_BINS = 16


@dataclass(frozen=True)
class ContextSettings:
    """Numbers of contexts: strongest ones, strata of the rest, contexts of each stratum, tokens on either side."""

    top: int
    strata: int
    per_stratum: int
    window_tokens: int


@dataclass(frozen=True, eq=False)
class RowFirings:
    """Firings of one latent on counted rows: `corpus` is the number of the corpus, rows rise within each.

    `massive` says which are on massive activations.
    """

    latent: int
    corpus: Int[np.ndarray, " firings"]
    row: Int[np.ndarray, " firings"]
    value: Float[np.ndarray, " firings"]
    massive: Bool[np.ndarray, " firings"]

    @property
    def largest(self) -> float:
        """The strongest activation, 0 for a silent latent."""
        return float(self.value.max(initial=0))

    @property
    def shade_scale(self) -> float:
        """Activation of the darkest shade: the strongest one that is not massive, or else all others would be pale."""
        return float(self.value[~self.massive].max(initial=0)) or self.largest

    @property
    def shown(self) -> "RowFirings":
        """Firings that are not on massive activations; all, where there are no others."""
        if not self.massive.any() or self.massive.all():
            return self
        kept = ~self.massive
        return RowFirings(self.latent, self.corpus[kept], self.row[kept], self.value[kept], self.massive[kept])

    def histogram(self) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins+1"]]:
        """Counts and edges of equal bins from 0 to the strongest activation."""
        return np.histogram(self.value, HISTOGRAM_BINS, (0.0, self.largest or 1.0))


@dataclass(frozen=True, eq=False)
class Context:
    """Rows `start` to `start + len(values)` of a corpus around row `peak`, and the latent's activation on each.

    `stratum` is 0 for the strongest contexts, else 1 (strong) to `strata` (weak); `low` and `high` bound its
    activations, `share` is its part of all firings. `massive` says which rows are massive activations; `again` that
    the document is shown before.
    """

    corpus: int
    start: int
    peak: int
    values: Float[np.ndarray, " tokens"]
    stratum: int
    low: float
    high: float
    share: float
    massive: Bool[np.ndarray, " tokens"]
    again: bool = False

    @property
    def peak_value(self) -> float:
        """Activation at the token that the context was chosen for."""
        return float(self.values[self.peak - self.start])


class Corpora:
    """Codes of one dictionary on all its evaluation corpora, read latent by latent."""

    def __init__(self, codes: Mapping[str, Codes]):
        self.names, self.codes = tuple(codes), tuple(codes.values())
        self._begins = [piece_begins(own.document, own.context_length) for own in self.codes]

    @cached_property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return self.codes[0].n_latents

    def firings(self, max_entries: int = 2**22) -> Iterator[RowFirings]:
        """Firings of every latent in order; one pass over the codes, some latents in memory at a time."""
        totals, start = np.cumsum(sum(own.n_firings.astype(np.int64) for own in self.codes)), 0
        while start < self.n_latents:
            before = totals[start - 1] if start else 0
            stop = max(int(np.searchsorted(totals, before + max_entries, side="right")), start + 1)
            yield from self._block(start, min(stop, self.n_latents))
            start = stop

    def _block(self, start: int, stop: int) -> Iterator[RowFirings]:
        blocks = [_counted(own, own.latents(start, stop)) for own in self.codes]
        for latent in range(start, stop):
            parts = [slice(*block.indptr[latent - start : latent - start + 2]) for block in blocks]
            sizes = [part.stop - part.start for part in parts]
            rows = [block.row[part].astype(np.int64) for block, part in zip(blocks, parts, strict=True)]
            yield RowFirings(
                latent,
                np.repeat(np.arange(len(blocks)), sizes),
                np.concatenate(rows),
                np.concatenate([block.value[part] for block, part in zip(blocks, parts, strict=True)]),
                np.concatenate([own.massive[row] for own, row in zip(self.codes, rows, strict=True)]),
            )

    def tokens(self, corpus: int, start: int, stop: int) -> list[int]:
        """Token ids of some rows."""
        return self.codes[corpus].tokens[start:stop].tolist()

    def massive(self, corpus: int, start: int, stop: int) -> Bool[np.ndarray, " tokens"]:
        """Return which of some rows are massive activations."""
        return self.codes[corpus].massive[start:stop].astype(bool)

    def contexts(self, firings: RowFirings, settings: ContextSettings) -> list[Context]:
        """The strongest contexts, one per document, and `per_stratum` of each stratum of the other firings.

        Firings on massive activations are left out, unless there are no others: they tell of the rows, not of a latent.
        Strata hold equally many firings; which contexts stand for one is drawn by chance, the same at every call. A
        document is shown once, as far as there are others: what comes again says so.
        """
        every, firings = firings, firings.shown
        order = np.argsort(-firings.value, kind="stable")
        first_of_document = np.zeros(len(order), bool)
        first_of_document[np.unique(self._documents(firings)[order], return_index=True)[1]] = True
        top = order[first_of_document][: settings.top]
        found = [
            self._context(every, firings, index, settings, 0, (firings.value[top].min(), firings.largest))
            for index in top
        ]
        generator = np.random.Generator(np.random.PCG64([firings.latent, 6]))
        rest = order[~np.isin(order, top)]
        document = self._documents(firings)
        shown = set(document[top].tolist())
        for number, members in enumerate(np.array_split(rest, settings.strata), 1):
            if len(members):
                bounds = (firings.value[members].min(), firings.value[members].max())
                share = len(members) / len(order)
                drawn = members[generator.permutation(len(members))]
                chosen = _other_documents(drawn, document[drawn], shown, settings.per_stratum)
                for index in chosen[np.argsort(-firings.value[chosen], kind="stable")]:
                    again = int(document[index]) in shown
                    shown.add(int(document[index]))
                    context = self._context(every, firings, index, settings, number, bounds, share)
                    found.append(replace(context, again=again))
        return found

    def around(self, firings: RowFirings, corpus: int, start: int, stop: int) -> Float[np.ndarray, " tokens"]:
        """Activation of the latent on rows start to stop of a corpus, 0 where it is silent."""
        own = slice(*np.searchsorted(firings.corpus, [corpus, corpus + 1]))
        inside = slice(*(own.start + np.searchsorted(firings.row[own], [start, stop])))
        values = np.zeros(stop - start, np.float32)
        values[firings.row[inside] - start] = firings.value[inside]
        return values

    def _documents(self, firings: RowFirings) -> Int[np.ndarray, " firings"]:
        """A number for the document of each firing that no other corpus has."""
        document = np.empty(len(firings.row), np.int64)
        for number, own in enumerate(self.codes):
            here = firings.corpus == number
            document[here] = (np.int64(number) << 32) + own.document[firings.row[here]]
        return document

    def _context(
        self,
        every: RowFirings,
        firings: RowFirings,
        index: int,
        settings: ContextSettings,
        stratum: int,
        bounds: tuple[float, float],
        share: float = 0.0,
    ) -> Context:
        """The context of a firing, with all activations in it."""
        corpus, row = int(firings.corpus[index]), int(firings.row[index])
        begins = self._begins[corpus]
        piece = int(np.searchsorted(begins, row, side="right"))
        end = begins[piece] if piece < len(begins) else self.codes[corpus].n_rows
        start = max(row - settings.window_tokens, int(begins[piece - 1]))
        stop = min(row + settings.window_tokens + 1, int(end))
        values = self.around(every, corpus, start, stop)
        numbers = (float(bounds[0]), float(bounds[1]), float(share))
        return Context(corpus, start, row, values, stratum, *numbers, self.massive(corpus, start, stop))


def _other_documents(
    drawn: Int[np.ndarray, " firings"], document: Int[np.ndarray, " firings"], shown: set[int], count: int
) -> Int[np.ndarray, " chosen"]:
    """The first firings of as many documents as possible that are not `shown`, then of others, up to `count`."""
    _, first = np.unique(document, return_index=True)
    fresh = np.sort(first[~np.isin(document[first], list(shown))])
    chosen = fresh[:count]
    others = np.setdiff1d(np.arange(len(drawn)), chosen)[: count - len(chosen)]
    return drawn[np.concatenate([chosen, others])]


def _counted(codes: Codes, entries: LatentEntries) -> LatentEntries:
    return entries.only(codes.counted[entries.row])
