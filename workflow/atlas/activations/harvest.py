"""Harvest: one forward pass over a corpus shard fills every hook of the model."""

import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
import transformers

from atlas.activations.layout import IDENTITY
from atlas.activations.window import MemoryShard, MemoryWriter
from atlas.activations.writer import RowColumns, RowWriter, ShardWriter
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit
from atlas.files import atomic_path, sha256_strings
from atlas.models.forward import capture
from atlas.models.load import LoadedModel
from atlas.progress import progress


def harvest_shard(
    loaded: LoadedModel,
    split: TokenSplit,
    shard: int,
    harvest: Harvest,
    hooks: Sequence[str],
    target: Path,
    before_batch: Callable[[], None] = lambda: None,
) -> None:
    """Run the contexts of one shard through the model and publish their activations at `target`.

    The file is written beside `target`, checked and renamed, so that `target` is complete or absent. What
    `before_batch` raises ends the pass. Raises StoreError when an activation is not finite, the disk is full, or what
    was written differs from what was captured.
    """
    with atomic_path(target) as temporary:
        _harvest(loaded, split, shard, harvest, hooks, lambda *what: ShardWriter(temporary, *what), before_batch)


def harvest_window_shard(
    loaded: LoadedModel,
    split: TokenSplit,
    shard: int,
    harvest: Harvest,
    hooks: Sequence[str],
    before_batch: Callable[[], None] = lambda: None,
) -> MemoryShard:
    """The same in host memory: the rows that `harvest_shard` would write, to the bit."""
    name = Path(f"{split.corpus} {split.split}-{shard:03d} (in memory)")
    shard_of = _harvest(loaded, split, shard, harvest, hooks, lambda *what: MemoryWriter(name, *what), before_batch)
    return cast(MemoryShard, shard_of)  # what this writer makes


def _harvest(
    loaded: LoadedModel,
    split: TokenSplit,
    shard: int,
    harvest: Harvest,
    hooks: Sequence[str],
    make: Callable[[RowColumns, dict[str, int], str], ShardWriter | MemoryWriter],
    before_batch: Callable[[], None],
) -> MemoryShard | None:
    contexts = shard_contexts(split, shard, harvest)
    columns, order, seed = arrange_rows(split, contexts, shard)
    places = np.argsort(order).reshape(len(contexts), split.context_length)  # row of each token in the file
    tokens = torch.from_numpy(split.tokens[contexts].astype(np.int64))
    writer = make(columns, _widths(loaded, tokens[:1], hooks), harvest.storage_dtype)
    with (
        progress(tokens.numel(), f"harvest {split.corpus} {split.split}-{shard:03d}", "token") as shown,
        _Background(writer) as sink,
    ):
        for first in range(0, len(contexts), harvest.batch_contexts):
            before_batch()
            batch = slice(first, first + harvest.batch_contexts)
            captured = capture(loaded, tokens[batch].to(loaded.device), hooks)
            sink.put(places[batch].reshape(-1), captured)
            shown.update(tokens[batch].numel())
    return writer.finish(shard_identity(loaded.identity, split, shard, harvest, seed))


def shard_contexts(split: TokenSplit, shard: int, harvest: Harvest) -> np.ndarray:
    """Indices of the contexts of a shard; all shards but the last are full."""
    per_shard = harvest.shard_tokens // split.context_length
    return np.arange(len(split.tokens))[shard * per_shard : (shard + 1) * per_shard]


def arrange_rows(split: TokenSplit, contexts: np.ndarray, shard: int) -> tuple[RowColumns, np.ndarray, int]:
    """Row columns in stored order, the order itself and its seed (−1: kept in sequence)."""
    n_rows = len(contexts) * split.context_length
    order, seed = np.arange(n_rows), -1
    if split.split == "train":
        seed = _shuffle_seed(split, shard)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(n_rows)
    position = np.tile(np.arange(split.context_length, dtype=np.uint32), len(contexts))
    flat = {name: getattr(split, name)[contexts].reshape(-1)[order] for name in ("tokens", "document", "counted")}
    return RowColumns(position=position[order], **flat), order, seed


def _shuffle_seed(split: TokenSplit, shard: int) -> int:
    return int(sha256_strings([split.fingerprint, str(shard)])[:12], 16)


def _widths(loaded: LoadedModel, context: torch.Tensor, hooks: Sequence[str]) -> dict[str, int]:
    """Width of every hook, asked of the model itself on one short context."""
    return {name: value.shape[-1] for name, value in capture(loaded, context[:, :8].to(loaded.device), hooks).items()}


def is_shard_of(found: Mapping[str, Any], loaded: LoadedModel, split: TokenSplit, shard: int, harvest: Harvest) -> bool:
    """Return whether the identity of a file is the one that `harvest_shard` would give it now."""
    seed = _shuffle_seed(split, shard) if split.split == "train" else -1
    return dict(found) == shard_identity(loaded.identity, split, shard, harvest, seed)


def shard_identity(
    model: Mapping[str, Any], split: TokenSplit, shard: int, harvest: Harvest, seed: int
) -> dict[str, Any]:
    """Attributes of a shard's file that say what it is; `model` is the prepared model's identity."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "h5py": h5py.__version__}
    known = {
        "model": model["name"],
        "revision": model["revision"],
        "weights_sha256": model["weights_sha256"],
        "tokenizer_sha256": model["tokenizer_sha256"],
        "corpus": split.corpus,
        "corpus_fingerprint": split.fingerprint,
        "split": split.split,
        "shard": shard,
        "n_shards": harvest.n_shards(split.split),
        "context_length": split.context_length,
        "batch_contexts": harvest.batch_contexts,
        "storage_dtype": harvest.storage_dtype,
        "shuffle_seed": seed,
        "versions": json.dumps(versions, sort_keys=True),
    }
    return {key: known[key] for key in IDENTITY}


def _to_host(captured: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.cuda.Event | None]:
    """The tensors in main memory, and on CUDA the event after which they are there.

    On CUDA they are copied to pinned memory on a stream of their own: the caller goes on to launch the next forward
    pass. What is in main memory already is not copied.
    """
    device = next(iter(captured.values())).device
    if device.type != "cuda":
        return {name: value.cpu() for name, value in captured.items()}, None
    copies, arrived = torch.cuda.Stream(device), torch.cuda.Event()
    copies.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(copies):
        host = {name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for name, value in captured.items()}
        for name, value in captured.items():
            host[name].copy_(value, non_blocking=True)
            value.record_stream(copies)  # else its memory could be given away before it is read
        arrived.record(copies)
    return host, arrived


class _Background:
    """Takes batches to the host and writes them in a thread while the next forward pass runs.

    At most two batches wait, which bounds memory. The first error of the thread is raised by the next `put` or at
    the end of the block; the thread has ended when the block is left.
    """

    def __init__(self, writer: RowWriter):
        self._writer = writer
        self._queue: queue.Queue = queue.Queue(maxsize=2)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="activation-writer", daemon=True)

    def __enter__(self) -> "_Background":
        self._thread.start()
        return self

    def put(self, places: np.ndarray, captured: dict[str, torch.Tensor]) -> None:
        """Hand over one batch: (contexts, position, d_model) per hook."""
        if self._error is not None:
            raise self._error
        self._queue.put((places, *_to_host({name: value.flatten(0, 1) for name, value in captured.items()})))

    def __exit__(self, kind, error, trace) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # drain, so that `put` never blocks on a dead thread
            places, captured, arrived = item
            try:
                if arrived is not None:
                    arrived.synchronize()
                self._writer.write_batch(places, captured)
            except BaseException as error:
                self._error = error
