"""Batches for training: a pure function of (seed, step) over the shards of a mix."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.blocks import Pool, eligible_rows
from atlas.activations.store import Shard
from atlas.config.data import Mix
from atlas.errors import StoreError
from atlas.files import sha256_strings
from atlas.hook_points import SaeHooks
from atlas.massive import MASSIVE_FACTOR

# A batch is put together from this many contiguous blocks: large enough reads for a disk, many enough draws for a mix.
BLOCKS_PER_BATCH = 8
# Part of a stream's identity; changed whenever the same seed and step come to mean other rows, or another order.
ORDER = "blocks one after the other"
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Batch:
    """Rows of one update in the storage dtype, and how many came from each corpus.

    `targets` are what a transcoder reconstructs: the same tokens' rows at its target hook.
    """

    rows: Float[Tensor, "batch d_model"]
    corpora: dict[str, int]
    targets: Float[Tensor, "batch d_target"] | None = None


@dataclass(frozen=True)
class StreamStatistics:
    """Float64 statistics over the trainable rows, weighted by the mix's average shares."""

    n_rows: int
    mean: Float[Tensor, " d_model"]
    mean_square_norm: float
    median_norm: float


class _Run(NamedTuple):
    """Rows of one shard that stand one after the other in a batch, rising."""

    corpus: str
    shard: Shard
    rows: np.ndarray


class _Ahead(NamedTuple):
    """A step whose rows are fetched and verified while the batch before it is put together."""

    step: int
    runs: Future[list[_Run]]


class BatchStream:
    """The rows that train one SAE, or the pairs of rows that train one transcoder (`hook` names two, then).

    `batch(step)` depends on the shards, mix, seed and step only: no state is carried from step to step, so a resumed
    run draws what an uninterrupted one would. Rows that are not counted, and massive activations if `exclude_massive`,
    are never drawn; of a pair neither side may be one. A corpus that is smaller than the steps need is visited again,
    in another order; `epochs` says how often.
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
        self.hooks = SaeHooks.parse(hook)
        _check_shards(shards, mix, self.hooks)
        self.mix, self.seed, self.batch_size, self.steps = mix, seed, batch_size, steps
        self._shards, self._exclude_massive, self._corpora = shards, exclude_massive, mix.corpora
        self._limits = {
            name: MASSIVE_FACTOR * norm if exclude_massive else float("inf") for name, norm in self._medians.items()
        }
        self._ahead: _Ahead | None = None
        self._helper = ThreadPoolExecutor(1, "next-batch")
        block_rows = batch_size // BLOCKS_PER_BATCH
        self._pools = {
            name: Pool(shards[name], self._limits, block_rows, [seed, number])
            for number, name in enumerate(self._corpora)
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
        return next(self._all()).d_model(self.hooks.source)

    @property
    def d_target(self) -> int:
        """Width of what is reconstructed; `d_model` for an SAE."""
        return next(self._all()).d_model(self.hooks.target)

    @cached_property
    def identity(self) -> str:
        """Hash of everything that decides which rows are drawn."""
        files = [
            f"{s.identity['corpus_fingerprint']}/{s.identity['weights_sha256']}/{s.identity['shard']}"
            for s in self._all()
        ]
        plan = [str(self.hooks), self.mix.model_dump_json(), str(self.seed), str(self.batch_size), str(self.steps)]
        return sha256_strings([ORDER, *plan, *map(str, self._limits.values()), *files])

    def batch(self, step: int) -> Batch:
        """The rows of one step; `step` counts from 0 and is below `steps`.

        Rows were shuffled when their shard was written. Within a batch they stand in the order of its blocks: no update
        depends on it, and to shuffle them once more would take nearly half of the reading speed.
        """
        ahead, self._ahead = self._ahead, None
        if step + 1 < self.steps:
            self._ahead = _Ahead(step + 1, self._helper.submit(self._fetched, step + 1))
        runs = ahead.runs.result() if ahead is not None and ahead.step == step else self._runs(step)
        drawn = dict.fromkeys(self._corpora, 0)
        for run in runs:
            drawn[run.corpus] += len(run.rows)
        rows = self._read(runs, self.hooks.source)
        return Batch(rows, drawn, self._read(runs, self.hooks.target) if self.hooks.is_transcoder else None)

    def where(self, step: int) -> list[tuple[Path, int]]:
        """File and row number of every row of `batch(step)`: what an error about a row has to name."""
        return [(run.shard.path, int(row)) for run in self._runs(step) for row in run.rows]

    def documents(self, step: int) -> dict[str, np.ndarray]:
        """For each corpus drawn in a step, the document number of each of its rows."""
        found: dict[str, list[np.ndarray]] = {}
        for run in self._runs(step):
            found.setdefault(run.corpus, []).append(run.shard.document[run.rows])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def trainable_documents(self) -> dict[str, np.ndarray]:
        """For each corpus, the document number of every row that may be drawn."""
        return {
            name: np.concatenate([shard.document[rows] for shard, rows in zip(pool.shards, pool.rows, strict=True)])
            for name, pool in self._pools.items()
        }

    def _runs(self, step: int) -> list[_Run]:
        """What a batch consists of: the same for every hook."""
        found = []
        slots = slice(step * BLOCKS_PER_BATCH, (step + 1) * BLOCKS_PER_BATCH)
        for number, rank in zip(*(column[slots].tolist() for column in self._plan), strict=True):
            name = self._corpora[number]
            found += [_Run(name, shard, rows) for shard, rows in self._pools[name].block(rank)]
        return found

    def _read(self, runs: list[_Run], hook: str) -> Float[Tensor, "batch d_model"]:
        rows = runs[0].shard.empty_rows(hook, self.batch_size)
        first = 0
        for run in runs:
            run.shard.read_into(rows[first : first + len(run.rows)], hook, run.rows)
            first += len(run.rows)
        return runs[0].shard.as_tensor(rows)

    def _fetched(self, step: int) -> list[_Run]:
        """The runs of a step, in memory and verified."""
        runs = self._runs(step)
        for act in (Shard.announce, Shard.verify):
            for hook in self.hooks.names:
                for run in runs:
                    act(run.shard, hook, int(run.rows[0]), int(run.rows[-1]) + 1)
        return runs

    def drawn_shares(self, steps: int | None = None) -> dict[str, float]:
        """The share of each corpus among the rows of the first `steps` steps, as really drawn."""
        slots = self._plan[0][: (self.steps if steps is None else steps) * BLOCKS_PER_BATCH]
        return {name: float((slots == number).mean()) for number, name in enumerate(self.mix.corpora)}

    def epochs(self) -> dict[str, float]:
        """How often each corpus is visited in all steps; above 1 rows repeat."""
        counts = np.bincount(self._plan[0], minlength=len(self.mix.corpora))
        return {name: float(counts[i]) / self._pools[name].n_blocks for i, name in enumerate(self.mix.corpora)}

    def statistics(self) -> StreamStatistics:
        """Statistics over the trainable rows; of a transcoder, of those it reads."""
        return self._statistics(self.hooks.source)

    def target_statistics(self) -> StreamStatistics:
        """Statistics over what is reconstructed.

        Of a transcoder: rows left out only because the other hook is massive there are in mean and mean square.
        """
        return self._statistics(self.hooks.target)

    def _statistics(self, hook: str) -> StreamStatistics:
        shares = self.drawn_shares()
        mean, square, suffix = 0.0, 0.0, "_regular" if self._exclude_massive else ""
        for name, share in shares.items():
            parts = [shard.statistics(hook) for shard in self._shards[name]]
            count = sum(part["count" + suffix] for part in parts)
            mean = mean + share * sum(part["mean" + suffix] * part["count" + suffix] for part in parts) / count
            square += share * sum(part["sum_square_norm" + suffix] for part in parts) / count
        n_rows = sum(pool.n_rows for pool in self._pools.values())
        return StreamStatistics(n_rows, torch.from_numpy(np.asarray(mean)), square, self._medians[hook])

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
    def _medians(self) -> dict[str, float]:
        return {hook: median_norm(list(self._all()), hook) for hook in (self.hooks.source, self.hooks.target)}

    def _all(self):
        return (shard for name in self.mix.corpora for shard in self._shards[name])


def _check_shards(shards: Mapping[str, list[Shard]], mix: Mix, hooks: SaeHooks) -> None:
    """Every corpus of the mix has shards, and all have the same hooks, of one width and number format."""
    if absent := [name for name in mix.corpora if not shards.get(name)]:
        raise StoreError(
            f"the mix draws from {', '.join(map(repr, absent))}, but there are only shards of "
            f"{', '.join(map(repr, shards)) or 'nothing'}; give those shards too, or leave the corpus out of the mix"
        )
    every = [shard for name in mix.corpora for shard in shards[name]]
    for hook in hooks.names:
        for shard in every:
            found, expected = ((one.d_model(hook), one.dtype) for one in (shard, every[0]))
            if found != expected:
                raise StoreError(
                    f"{shard.path}: rows at {hook} have d_model {found[0]} and {found[1]}, but {expected[0]} and "
                    f"{expected[1]} in {every[0].path}: they belong to different models; delete the wrong file and "
                    "run again"
                )


def median_norm(shards: list[Shard], hook: str) -> float:
    """Median norm of the counted rows of a hook: the scale that massive activations are measured against."""
    return float(np.median(np.concatenate([shard.norms(hook)[shard.counted] for shard in shards])))


def sample_rows(
    shards: list[Shard], hook: str, n_rows: int, limit: float, seed: int = 0
) -> Float[Tensor, "rows d_model"]:
    """A fixed sample of counted rows with norms up to `limit`, for monitoring; all of them where there are fewer."""
    return sample_tokens(shards, {hook: limit}, n_rows, seed)[hook]


def sample_tokens(
    shards: list[Shard], limits: Mapping[str, float], n_rows: int, seed: int = 0
) -> dict[str, Float[Tensor, "rows d_model"]]:
    """The same for several hooks: rows of the same tokens, within the limit of each hook."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = {hook: [] for hook in limits}
    for shard in shards:
        chosen = np.sort(generator.permutation(eligible_rows(shard, limits))[: -(-n_rows // len(shards))])
        for hook, parts in rows.items():
            parts += [shard.read_rows(hook, int(row), int(row) + 1) for row in chosen]
    return {hook: torch.cat(parts) for hook, parts in rows.items()}
