"""Batches for training: a pure function of (seed, step) over the shards of a mix."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.blocks import Pool
from atlas.activations.plan import BLOCKS_PER_BATCH, Plan, Window
from atlas.activations.sampling import median_norm
from atlas.activations.store import Shard
from atlas.activations.windowed import Account, Windowed
from atlas.config.mixes import Mix
from atlas.errors import StoreError
from atlas.files import sha256_strings
from atlas.hook_points import SaeHooks
from atlas.massive import MASSIVE_FACTOR

# Part of a stream's identity; changed whenever the same seed and step come to mean other rows, or another order.
ORDER = "blocks one after the other"
# Windows of a corpus whose rows are kept in order: a batch is read while the one before it, perhaps of another window,
# is put together.
_KEPT_WINDOWS = 2


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
    """Float64 statistics over the trainable rows, weighted by the mix's average shares; in windows over those of the
    first part. `n_rows` are all trainable rows, None while windows are to come that nobody has counted.
    """

    n_rows: int | None
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

    With `windowed`, a batch needs the shards of its windows alone: others may be missing from `shards`, whose entries
    are then looked up when a window is first drawn from. `end` is the step before which windows are at hand.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[Shard]],
        hook: str,
        mix: Mix,
        seed: int,
        batch_size: int,
        steps: int,
        exclude_massive: bool = True,
        windowed: Windowed | None = None,
    ):
        if batch_size % BLOCKS_PER_BATCH:
            raise StoreError(f"batch_size is {batch_size}: must be a multiple of {BLOCKS_PER_BATCH}")
        self.hooks = SaeHooks.parse(hook)
        self._facts = shards if windowed is None else windowed.facts
        _check_shards(self._facts, mix, self.hooks)
        self.mix, self.seed, self.batch_size, self.steps, self.end = mix, seed, batch_size, steps, steps
        self._shards, self._exclude_massive, self._corpora = shards, exclude_massive, mix.corpora
        self._windowed = windowed
        self._limits = {
            name: MASSIVE_FACTOR * norm if exclude_massive else float("inf") for name, norm in self._medians.items()
        }
        self._ahead: _Ahead | None = None
        self._helper = ThreadPoolExecutor(1, "next-batch")
        self._rows = (
            {name: [shard.n_rows for shard in shards[name]] for name in mix.corpora}
            if windowed is None
            else {name: windowed.rows[name] for name in mix.corpora}
        )
        self.plan = Plan(mix, seed, steps, self._rows, None if windowed is None else windowed.window_shards)
        self._pools: dict[Window, Pool] = {}
        self._lock = Lock()
        self.account = Account()
        if windowed is None:
            for (window,) in self.plan.windows.values():
                self._pool(window)

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        return next(self._known()).d_model(self.hooks.source)

    @property
    def d_target(self) -> int:
        """Width of what is reconstructed; `d_model` for an SAE."""
        return next(self._known()).d_model(self.hooks.target)

    @cached_property
    def identity(self) -> str:
        """Hash of everything that decides which rows are drawn."""
        files = [
            f"{facts.identity['corpus_fingerprint']}/{facts.identity['weights_sha256']}/{shard}"
            for facts, n_shards in ((self._facts[name][0], len(self._rows[name])) for name in self._corpora)
            for shard in range(n_shards)
        ]
        plan = [str(self.hooks), self.mix.model_dump_json(), str(self.seed), str(self.batch_size), str(self.steps)]
        if self._windowed is not None:
            rows = [str(list(self._rows[name])) for name in self._corpora]
            plan += [f"windows of {self._windowed.window_shards}", *rows]
        return sha256_strings([ORDER, *plan, *map(str, self._limits.values()), *files])

    def batch(self, step: int) -> Batch:
        """The rows of one step; `step` counts from 0 and is below `steps`.

        Rows were shuffled when their shard was written. Within a batch they stand in the order of its blocks: no update
        depends on it, and to shuffle them once more would take nearly half of the reading speed.
        """
        ahead, self._ahead = self._ahead, None
        if step + 1 < self.end:
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
        """For each corpus, the document number of every row that may be drawn; in windows, of every counted row."""
        if self._windowed is not None:
            return {name: self._windowed.documents[name] for name in self._corpora}
        pools = {window.corpus: pool for window, pool in self._pools.items()}
        return {
            name: np.concatenate([shard.document[rows] for shard, rows in zip(pool.shards, pool.rows, strict=True)])
            for name, pool in pools.items()
        }

    def pairs(self, step: int) -> int:
        """Return how many pairs of rows of a step are of one document, each row with itself included; kept in
        `account`.
        """
        if str(step) not in self.account.pairs:
            counts = [np.unique(numbers, return_counts=True)[1] for numbers in self.documents(step).values()]
            self.account.pairs[str(step)] = int(sum((each.astype(np.int64) ** 2).sum() for each in counts))
        return self.account.pairs[str(step)]

    def rows_of(self, step: int) -> dict[str, int]:
        """Return how many rows of a step are of each corpus; needs no window."""
        slots = self.plan.corpora[step * BLOCKS_PER_BATCH : (step + 1) * BLOCKS_PER_BATCH]
        block = self.batch_size // BLOCKS_PER_BATCH
        return {self._corpora[number]: int((slots == number).sum()) * block for number in np.unique(slots)}

    def forget(self, window: Window) -> None:
        """Let go of a window's shards: no step that is still to come draws from it."""
        self._pools.pop(window, None)
        self._ahead = None

    def recall(self, account: Mapping[str, Any]) -> None:
        """Take over what an earlier process learnt of windows that are gone."""
        self.account = Account(**account)

    def _runs(self, step: int) -> list[_Run]:
        """Return what a batch consists of: the same for every hook."""
        return [
            _Run(window.corpus, shard, rows)
            for window, rank in self.plan.blocks(step)
            for shard, rows in self._pool(window).block(rank)
        ]

    def _pool(self, window: Window) -> Pool:
        """The trainable rows of a window, counted when it is first drawn from."""
        with self._lock:
            if window in self._pools:
                return self._pools[window]
            block_rows = self.batch_size // BLOCKS_PER_BATCH
            shards = [self._shards[window.corpus][number] for number in window.shards]
            key = [self.seed, self._corpora.index(window.corpus)]
            if self._windowed is not None:
                key.append(window.number)
            pool = Pool(shards, self._limits, block_rows, key)
            if pool.n_blocks == 0:
                where, raised = "", "train_tokens"
                if self._windowed is not None:
                    where, raised = f" in shards {window.first} to {window.stop - 1}", "train_tokens or window_shards"
                raise StoreError(
                    f"corpus {window.corpus!r} has {pool.n_rows} trainable rows{where} at {self.hooks}, fewer than a "
                    f"block of {block_rows}; raise {raised} or lower batch_size"
                )
            others = [old for old in self._pools if old.corpus == window.corpus]
            for old in others[: len(others) + 1 - _KEPT_WINDOWS]:
                del self._pools[old]
            self._pools[window] = pool
            self.account.windows[f"{window.corpus}/{window.number}"] = [pool.n_rows, pool.n_blocks]
            return pool

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
        slots = self.plan.corpora[: (self.steps if steps is None else steps) * BLOCKS_PER_BATCH]
        return {name: float((slots == number).mean()) for number, name in enumerate(self.mix.corpora)}

    def epochs(self) -> dict[str, float]:
        """Return how often each corpus is visited in all steps; above 1 rows repeat.

        In windows, where not all are drawn from, of those that are. Each is counted now if that was not done before.
        """
        counts = np.bincount(self.plan.corpora, minlength=len(self.mix.corpora))
        blocks = {name: sum(found[1] for found in self._counted(name)) for name in self._corpora}
        return {name: float(counts[i]) / max(1, blocks[name]) for i, name in enumerate(self._corpora)}

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
            parts = [shard.statistics(hook) for shard in self._facts[name]]
            count = sum(part["count" + suffix] for part in parts)
            mean = mean + share * sum(part["mean" + suffix] * part["count" + suffix] for part in parts) / count
            square += share * sum(part["sum_square_norm" + suffix] for part in parts) / count
        return StreamStatistics(self._n_rows(), torch.from_numpy(np.asarray(mean)), square, self._medians[hook])

    def _n_rows(self) -> int | None:
        """Trainable rows of all windows that are drawn from."""
        known = [self.account.windows.get(f"{window.corpus}/{window.number}") for window in self.plan.use]
        counted = [each[0] for each in known if each is not None]
        return sum(counted) if len(counted) == len(known) else None

    def _counted(self, name: str) -> list[list[int]]:
        """Trainable rows and blocks of each window of a corpus that is drawn from."""
        for window in (used := [window for window in self.plan.use if window.corpus == name]):
            if f"{name}/{window.number}" not in self.account.windows:
                self._pool(window)
        return [self.account.windows[f"{name}/{window.number}"] for window in used]

    @cached_property
    def _medians(self) -> dict[str, float]:
        return {hook: median_norm(list(self._known()), hook) for hook in (self.hooks.source, self.hooks.target)}

    def _known(self):
        """Return what statistics are taken from: all shards, or in windows the first part."""
        return (shard for name in self.mix.corpora for shard in self._facts[name])


def _check_shards(shards: Mapping[str, Sequence[Shard]], mix: Mix, hooks: SaeHooks) -> None:
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
