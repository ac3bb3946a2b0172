"""The rows that may train, and their order: blocks of consecutive rows, every block once an epoch."""

import bisect
import itertools
from collections.abc import Mapping

import numpy as np

from atlas.activations.store import Shard


class Pool:
    """The trainable rows of one corpus, as blocks of consecutive trainable rows.

    An epoch visits every block once in an order of its own. Where blocks begin is shifted per epoch, so that the
    rows left over by the division are others each time.
    """

    def __init__(self, shards: list[Shard], limits: Mapping[str, float], block_rows: int, key: list[int]):
        self.shards, self.block_rows, self._key = shards, block_rows, key
        self.rows = [eligible_rows(shard, limits).astype(np.uint32) for shard in shards]
        self.n_rows = sum(map(len, self.rows))
        blocks = [len(rows) // block_rows for rows in self.rows]
        self.n_blocks = sum(blocks)
        self._first_block = [0, *itertools.accumulate(blocks)]
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def block(self, rank: int) -> list[tuple[Shard, np.ndarray]]:
        """Rows of the rank-th block that is ever drawn, with their shard: one run of rising rows, or two.

        Two where a block begins near the end of its shard and goes on at its front.
        """
        epoch, within = divmod(rank, self.n_blocks)
        order, shifts = self._epoch(epoch)
        number = int(order[within])
        place = bisect.bisect_right(self._first_block, number) - 1
        shard, rows = self.shards[place], self.rows[place]
        start = ((number - self._first_block[place]) * self.block_rows + int(shifts[place])) % len(rows)
        stop = start + self.block_rows
        if stop <= len(rows):
            return [(shard, rows[start:stop])]
        return [(shard, rows[start:]), (shard, rows[: stop - len(rows)])]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            generator = np.random.Generator(np.random.PCG64([*self._key, epoch]))
            shifts = generator.integers(0, [max(1, len(rows)) for rows in self.rows])
            self._epochs = {epoch: (generator.permutation(self.n_blocks), shifts)} | {
                old: plan for old, plan in self._epochs.items() if old == epoch - 1
            }
        return self._epochs[epoch]


def eligible_rows(shard: Shard, limits: Mapping[str, float]) -> np.ndarray:
    """Numbers of the counted rows whose norm at each hook of `limits` is up to its limit, rising."""
    fits = shard.counted
    for hook, limit in limits.items():
        fits = fits & (shard.norms(hook) <= limit)
    return np.flatnonzero(fits)
