"""Plan from which corpus, and from which window of its shards, each block of each step comes. No row is read."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from atlas.config.mixes import Mix

# A batch is put together from this many contiguous blocks: large enough reads for a disk, many enough draws for a mix.
BLOCKS_PER_BATCH = 8
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, order=True)
class Window:
    """Consecutive shards of one corpus, `first` to `stop` - 1; `number` counts the corpus' windows."""

    corpus: str
    number: int
    first: int
    stop: int

    @property
    def shards(self) -> range:
        """Numbers of its shards."""
        return range(self.first, self.stop)


def windows_of(corpus: str, n_shards: int, window_shards: int | None) -> list[Window]:
    """Cut a corpus into windows of so many shards, the last perhaps of fewer; None: one window of all shards."""
    size = window_shards or n_shards
    firsts = range(0, n_shards, size)
    return [Window(corpus, number, first, min(first + size, n_shards)) for number, first in enumerate(firsts)]


class Plan:
    """Draws of every step, as a pure function of the mix, the seed and the numbers of rows of the shards.

    Corpora are chosen by a golden-ratio sequence against the schedule's cumulative weights: drawn shares follow any
    schedule within a few blocks, without chance.

    Each corpus is passed once, window by window. A window with a tenth of its corpus' rows serves a tenth of the blocks
    that are drawn from the corpus; where this is more than one epoch, they come again in another order. A step draws
    from one window of each corpus. The number of blocks that all earlier steps drew decides which.
    """

    def __init__(self, mix: Mix, seed: int, steps: int, rows: Mapping[str, Sequence[int]], window_shards: int | None):
        self.mix, self.seed, self.steps = mix, seed, steps
        self.windows = {name: windows_of(name, len(rows[name]), window_shards) for name in mix.corpora}
        self._rows = {name: [sum(rows[name][w.first : w.stop]) for w in each] for name, each in self.windows.items()}

    def blocks(self, step: int) -> list[tuple[Window, int]]:
        """Return the window of each block of a step, and how many blocks this window has served before."""
        slots = slice(step * BLOCKS_PER_BATCH, (step + 1) * BLOCKS_PER_BATCH)
        numbers, ranks = self.corpora[slots].tolist(), self._ranks[slots].tolist()
        standing = {number: self._window(self.mix.corpora[number], step) for number in set(numbers)}
        return [(standing[number][0], rank - standing[number][1]) for number, rank in zip(numbers, ranks, strict=True)]

    @cached_property
    def use(self) -> dict[Window, tuple[int, int]]:
        """The first step that draws from each window, and the one after the last; unused windows are absent.

        Every step between draws from that window or from no window of its corpus.
        """
        found = {}
        for number, name in enumerate(self.mix.corpora):
            steps = np.unique(np.flatnonzero(self.corpora == number) // BLOCKS_PER_BATCH)
            numbers = np.searchsorted(self._firsts[name], self._before[name][steps], side="right") - 1
            for window in self.windows[name]:
                mine = steps[numbers == window.number]
                if len(mine):
                    found[window] = (int(mine[0]), int(mine[-1]) + 1)
        return found

    @cached_property
    def corpora(self) -> np.ndarray:
        """Number of the corpus of every block ever drawn."""
        slots = np.arange(self.steps * BLOCKS_PER_BATCH)
        offset = np.random.Generator(np.random.PCG64([self.seed, 2**31 + 1])).random()
        points = (offset + slots * _GOLDEN) % 1.0
        progress = (slots // BLOCKS_PER_BATCH + 0.5) / self.steps
        ends = np.array([phase.until for phase in self.mix.phases])
        phase = np.minimum(np.searchsorted(ends, progress), len(ends) - 1)
        weights = np.array([[p.weights.get(name, 0.0) for name in self.mix.corpora] for p in self.mix.phases])
        bounds = np.cumsum(weights, axis=1)
        bounds[:, -1] = 1.0 + 1e-9
        return (points[:, None] >= bounds[phase]).sum(axis=1)

    @cached_property
    def _ranks(self) -> np.ndarray:
        """Number of earlier blocks of the same corpus, for every block ever drawn."""
        rank = np.zeros(len(self.corpora), dtype=np.int64)
        for number in range(len(self.mix.corpora)):
            mine = self.corpora == number
            rank[mine] = np.arange(mine.sum())
        return rank

    @cached_property
    def _before(self) -> dict[str, np.ndarray]:
        """Number of blocks that all earlier steps drew, by corpus and step."""
        per_step = self.corpora.reshape(self.steps, BLOCKS_PER_BATCH)
        counts = {name: (per_step == number).sum(axis=1) for number, name in enumerate(self.mix.corpora)}
        return {name: np.concatenate([[0], np.cumsum(each)[:-1]]) for name, each in counts.items()}

    @cached_property
    def _drawn(self) -> dict[str, int]:
        return {name: int((self.corpora == number).sum()) for number, name in enumerate(self.mix.corpora)}

    @cached_property
    def _firsts(self) -> dict[str, np.ndarray]:
        """Number of blocks of its corpus that were drawn before each window's first step; rising."""
        found = {}
        for name, rows in self._rows.items():
            before = self._before[name]
            cuts = [self._drawn[name] * end // sum(rows) for end in itertools.accumulate(rows, initial=0)][:-1]
            # A step that has begun in a window stays in it: the next one begins with the first step from there on.
            starts = np.append(before, self._drawn[name])
            found[name] = starts[np.searchsorted(starts, cuts)]
        return found

    def _window(self, name: str, step: int) -> tuple[Window, int]:
        """The window in which a step stands, and how many blocks of the corpus came before that window."""
        firsts = self._firsts[name]
        number = int(np.searchsorted(firsts, self._before[name][step], side="right")) - 1
        return self.windows[name][number], int(firsts[number])
