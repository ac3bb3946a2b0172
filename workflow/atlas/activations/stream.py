"""Batches for training: a pure function of (seed, step) over the shards of a mix."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.layout import MASSIVE_FACTOR
from atlas.activations.store import Shard
from atlas.config.data import Mix
from atlas.errors import StoreError
from atlas.files import sha256_strings

# A batch is put together from this many contiguous blocks: large enough reads for a disk, many enough draws for a mix.
BLOCKS_PER_BATCH = 8
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Batch:
    """Rows of one update in the storage dtype, and how many came from each corpus."""

    rows: Float[Tensor, "batch d_model"]
    corpora: dict[str, int]


@dataclass(frozen=True)
class StreamStatistics:
    """Float64 statistics over the trainable rows, weighted by the mix's average shares."""

    n_rows: int
    mean: Float[Tensor, " d_model"]
    mean_square_norm: float
    median_norm: float


class _Pool:
    """The trainable rows of one corpus, as blocks of consecutive trainable rows.

    An epoch visits every block once in an order of its own. Where blocks begin is shifted per epoch, so that the
    rows left over by the division are others each time.
    """

    def __init__(self, shards: list[Shard], hook: str, limit: float, block_rows: int, key: list[int]):
        self.shards, self.hook, self.block_rows, self._key = shards, hook, block_rows, key
        self.rows = [np.flatnonzero(s.counted & (s.norms(hook) <= limit)).astype(np.uint32) for s in shards]
        self.n_rows = sum(map(len, self.rows))
        blocks = np.array([len(rows) // block_rows for rows in self.rows])
        self.n_blocks = int(blocks.sum())
        self._first_block = np.concatenate([[0], np.cumsum(blocks)])
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def block(self, rank: int) -> Float[Tensor, "block_rows d_model"]:
        """The rank-th block that is ever drawn."""
        epoch, within = divmod(rank, self.n_blocks)
        order, shifts = self._epoch(epoch)
        number = int(order[within])
        shard = int(np.searchsorted(self._first_block, number, side="right")) - 1
        rows = self.rows[shard]
        start = (number - self._first_block[shard]) * self.block_rows + shifts[shard]
        wanted = rows[(start + np.arange(self.block_rows)) % len(rows)].astype(np.int64)
        turn = int(np.argmin(wanted))  # rows rise but for one wrap to the front
        return torch.cat([self._read(shard, part) for part in (wanted[:turn], wanted[turn:]) if len(part)])

    def _read(self, shard: int, wanted: np.ndarray) -> Tensor:
        first, last = int(wanted[0]), int(wanted[-1])
        return self.shards[shard].read_rows(self.hook, first, last + 1)[torch.from_numpy(wanted - first)]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            generator = np.random.Generator(np.random.PCG64([*self._key, epoch]))
            shifts = generator.integers(0, [max(1, len(rows)) for rows in self.rows])
            self._epochs = {epoch: (generator.permutation(self.n_blocks), shifts)} | {
                old: plan for old, plan in self._epochs.items() if old == epoch - 1
            }
        return self._epochs[epoch]


class BatchStream:
    """The rows that train one SAE.

    `batch(step)` depends on the shards, mix, seed and step only: no state is carried from step to step, so a resumed
    run draws what an uninterrupted one would. Rows that are not counted, and massive activations if `exclude_massive`,
    are never drawn. A corpus that is smaller than the steps need is visited again, in another order; `epochs` says
    how often.
    """

    def __init__(
        self,
        shards: dict[str, list[Shard]],
        hook: str,
        mix: Mix,
        seed: int,
        batch_size: int,
        steps: int,
        exclude_massive: bool = True,
    ):
        if batch_size % BLOCKS_PER_BATCH:
            raise StoreError(f"batch_size is {batch_size}: must be a multiple of {BLOCKS_PER_BATCH}")
        self.hook, self.mix, self.seed, self.batch_size, self.steps = hook, mix, seed, batch_size, steps
        self._shards = shards
        self._massive_limit = MASSIVE_FACTOR * self._median_norm if exclude_massive else float("inf")
        block_rows = batch_size // BLOCKS_PER_BATCH
        self._pools = {
            name: _Pool(shards[name], hook, self._massive_limit, block_rows, [seed, number])
            for number, name in enumerate(mix.corpora)
        }
        for name, pool in self._pools.items():
            if pool.n_blocks == 0:
                raise StoreError(
                    f"corpus {name!r} has {pool.n_rows} trainable rows at {hook}, fewer than a block of {block_rows}; "
                    "raise train_tokens or lower batch_size"
                )

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        return next(iter(self._shards.values()))[0].d_model(self.hook)

    @cached_property
    def identity(self) -> str:
        """Hash of everything that decides which rows are drawn."""
        files = [
            f"{s.identity['corpus_fingerprint']}/{s.identity['weights_sha256']}/{s.identity['shard']}"
            for s in self._all()
        ]
        plan = [self.hook, self.mix.model_dump_json(), str(self.seed), str(self.batch_size), str(self.steps)]
        return sha256_strings([*plan, str(self._massive_limit), *files])

    def batch(self, step: int) -> Batch:
        """The rows of one step, shuffled; `step` counts from 0 and is below `steps`."""
        slots = range(step * BLOCKS_PER_BATCH, (step + 1) * BLOCKS_PER_BATCH)
        names, blocks = [], []
        for slot in slots:
            name = self.mix.corpora[self._plan[0][slot]]
            names.append(name)
            blocks.append(self._pools[name].block(int(self._plan[1][slot])))
        rows = torch.cat(blocks)
        order = np.random.Generator(np.random.PCG64([self.seed, 2**31, step])).permutation(len(rows))
        block_rows = self.batch_size // BLOCKS_PER_BATCH
        drawn = {name: names.count(name) * block_rows for name in self.mix.corpora}
        return Batch(rows[torch.from_numpy(order)], drawn)

    def drawn_shares(self, steps: int | None = None) -> dict[str, float]:
        """The share of each corpus among the rows of the first `steps` steps, as really drawn."""
        slots = self._plan[0][: (self.steps if steps is None else steps) * BLOCKS_PER_BATCH]
        return {name: float((slots == number).mean()) for number, name in enumerate(self.mix.corpora)}

    def epochs(self) -> dict[str, float]:
        """How often each corpus is visited in all steps; above 1 rows repeat."""
        counts = np.bincount(self._plan[0], minlength=len(self.mix.corpora))
        return {name: float(counts[i]) / self._pools[name].n_blocks for i, name in enumerate(self.mix.corpora)}

    def statistics(self) -> StreamStatistics:
        """Statistics over the trainable rows."""
        shares, regular = self.drawn_shares(), np.isfinite(self._massive_limit)
        mean, square, suffix = 0.0, 0.0, "_regular" if regular else ""
        for name, share in shares.items():
            parts = [shard.statistics(self.hook) for shard in self._shards[name]]
            count = sum(part["count" + suffix] for part in parts)
            mean = mean + share * sum(part["mean" + suffix] * part["count" + suffix] for part in parts) / count
            square += share * sum(part["sum_square_norm" + suffix] for part in parts) / count
        n_rows = sum(pool.n_rows for pool in self._pools.values())
        return StreamStatistics(n_rows, torch.from_numpy(np.asarray(mean)), square, self._median_norm)

    @cached_property
    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        """For every block ever drawn: its corpus, and how many of that corpus came before.

        Corpora are chosen by a golden-ratio sequence against the schedule's cumulative weights: drawn shares
        follow any schedule within a few blocks, without chance.
        """
        slots = np.arange(self.steps * BLOCKS_PER_BATCH)
        offset = np.random.Generator(np.random.PCG64([self.seed, 2**31 + 1])).random()
        points = (offset + slots * _GOLDEN) % 1.0
        training_progress = (slots // BLOCKS_PER_BATCH + 0.5) / self.steps
        ends = np.array([phase.until for phase in self.mix.phases])
        phase = np.minimum(np.searchsorted(ends, training_progress), len(ends) - 1)
        weights = np.array([[p.weights.get(name, 0.0) for name in self.mix.corpora] for p in self.mix.phases])
        bounds = np.cumsum(weights, axis=1)
        bounds[:, -1] = 1.0 + 1e-9
        corpus = (points[:, None] >= bounds[phase]).sum(axis=1)
        rank = np.zeros(len(slots), dtype=np.int64)
        for number in range(len(self.mix.corpora)):
            mine = corpus == number
            rank[mine] = np.arange(mine.sum())
        return corpus, rank

    @cached_property
    def _median_norm(self) -> float:
        return median_norm(list(self._all()), self.hook)

    def _all(self):
        return (shard for name in self.mix.corpora for shard in self._shards[name])


def median_norm(shards: list[Shard], hook: str) -> float:
    """Median norm of the counted rows of a hook: the scale that massive activations are measured against."""
    return float(np.median(np.concatenate([shard.norms(hook)[shard.counted] for shard in shards])))


def sample_rows(
    shards: list[Shard], hook: str, n_rows: int, limit: float, seed: int = 0
) -> Float[Tensor, "rows d_model"]:
    """A fixed sample of counted rows with norms up to `limit`, for monitoring; all of them where there are fewer."""
    rows = []
    generator = np.random.Generator(np.random.PCG64(seed))
    for shard in shards:
        eligible = np.flatnonzero(shard.counted & (shard.norms(hook) <= limit))
        chosen = np.sort(generator.permutation(eligible)[: -(-n_rows // len(shards))])
        rows += [shard.read_rows(hook, int(row), int(row) + 1) for row in chosen]
    return torch.cat(rows)
