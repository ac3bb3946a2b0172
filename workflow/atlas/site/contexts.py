"""Where a latent fires: its strongest contexts, some of every stratum of activation, and how strong it fires at all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from atlas.codes.store import Codes, LatentEntries
from atlas.latents.text import piece_begins

HISTOGRAM_BINS = 16


@dataclass(frozen=True)
class ContextSettings:
    """How many contexts: strongest ones, strata of the rest, contexts of each stratum, tokens on either side."""

    top: int
    strata: int
    per_stratum: int
    window_tokens: int


@dataclass(frozen=True, eq=False)
class Firings:
    """Firings of one latent on counted rows: `corpus` is the number of the corpus, rows rise within each."""

    latent: int
    corpus: Int[np.ndarray, " firings"]
    row: Int[np.ndarray, " firings"]
    value: Float[np.ndarray, " firings"]

    @property
    def largest(self) -> float:
        """The strongest activation, 0 for a silent latent."""
        return float(self.value.max(initial=0))

    def histogram(self) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins+1"]]:
        """Counts and edges of equal bins from 0 to the strongest activation."""
        return np.histogram(self.value, HISTOGRAM_BINS, (0.0, self.largest or 1.0))


@dataclass(frozen=True, eq=False)
class Context:
    """Rows `start` to `start + len(values)` of a corpus around row `peak`, and the latent's activation on each.

    `stratum` is 0 for the strongest contexts, else 1 (strong) to `strata` (weak); `low` and `high` bound its
    activations, `share` is its part of all firings.
    """

    corpus: int
    start: int
    peak: int
    values: Float[np.ndarray, " tokens"]
    stratum: int
    low: float
    high: float
    share: float

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

    def firings(self, max_entries: int = 2**22) -> Iterator[Firings]:
        """Firings of every latent in order; one pass over the codes, some latents in memory at a time."""
        totals, start = np.cumsum(sum(own.n_firings.astype(np.int64) for own in self.codes)), 0
        while start < self.n_latents:
            before = totals[start - 1] if start else 0
            stop = max(int(np.searchsorted(totals, before + max_entries, side="right")), start + 1)
            yield from self._block(start, min(stop, self.n_latents))
            start = stop

    def _block(self, start: int, stop: int) -> Iterator[Firings]:
        blocks = [_counted(own, own.latents(start, stop)) for own in self.codes]
        for latent in range(start, stop):
            parts = [slice(*block.indptr[latent - start : latent - start + 2]) for block in blocks]
            sizes = [part.stop - part.start for part in parts]
            yield Firings(
                latent,
                np.repeat(np.arange(len(blocks)), sizes),
                np.concatenate([block.row[part] for block, part in zip(blocks, parts, strict=True)]).astype(np.int64),
                np.concatenate([block.value[part] for block, part in zip(blocks, parts, strict=True)]),
            )

    def tokens(self, corpus: int, start: int, stop: int) -> list[int]:
        """Token ids of some rows."""
        return self.codes[corpus].tokens[start:stop].tolist()

    def contexts(self, firings: Firings, settings: ContextSettings) -> list[Context]:
        """The strongest contexts, one per document, and `per_stratum` of each stratum of the other firings.

        Strata hold equally many firings; which contexts stand for one is drawn by chance, the same at every call.
        """
        order = np.argsort(-firings.value, kind="stable")
        document = self._documents(firings)[order]
        first_of_document = np.zeros(len(order), bool)
        first_of_document[np.unique(document, return_index=True)[1]] = True
        top = order[first_of_document][: settings.top]
        found = [
            self._context(firings, index, settings, 0, (firings.value[top].min(), firings.largest)) for index in top
        ]
        generator = np.random.Generator(np.random.PCG64([firings.latent, 6]))
        rest = order[~np.isin(order, top)]
        for number, members in enumerate(np.array_split(rest, settings.strata), 1):
            if len(members):
                bounds = (firings.value[members].min(), firings.value[members].max())
                share = len(members) / len(order)
                for index in np.sort(generator.permutation(len(members))[: settings.per_stratum]):
                    found.append(self._context(firings, members[index], settings, number, bounds, share))
        return found

    def around(self, firings: Firings, corpus: int, start: int, stop: int) -> Float[np.ndarray, " tokens"]:
        """Activation of the latent on rows start to stop of a corpus, 0 where it is silent."""
        own = slice(*np.searchsorted(firings.corpus, [corpus, corpus + 1]))
        inside = slice(*(own.start + np.searchsorted(firings.row[own], [start, stop])))
        values = np.zeros(stop - start, np.float32)
        values[firings.row[inside] - start] = firings.value[inside]
        return values

    def _documents(self, firings: Firings) -> Int[np.ndarray, " firings"]:
        """A number for the document of each firing that no other corpus has."""
        document = np.empty(len(firings.row), np.int64)
        for number, own in enumerate(self.codes):
            here = firings.corpus == number
            document[here] = (np.int64(number) << 32) + own.document[firings.row[here]]
        return document

    def _context(self, firings: Firings, index: int, settings: ContextSettings, stratum, bounds, share=0.0) -> Context:
        corpus, row = int(firings.corpus[index]), int(firings.row[index])
        begins = self._begins[corpus]
        piece = int(np.searchsorted(begins, row, side="right"))
        end = begins[piece] if piece < len(begins) else self.codes[corpus].n_rows
        start = max(row - settings.window_tokens, int(begins[piece - 1]))
        stop = min(row + settings.window_tokens + 1, int(end))
        values = self.around(firings, corpus, start, stop)
        return Context(corpus, start, row, values, stratum, float(bounds[0]), float(bounds[1]), float(share))


def _counted(codes: Codes, entries: LatentEntries) -> LatentEntries:
    return entries.only(codes.counted[entries.row])
