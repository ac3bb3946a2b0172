"""Files of facts: columns, norms and statistics of training shards whose rows are not kept, in the same format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from atlas.activations.harvest import harvest_shard, harvest_window_shard, shard_contexts
from atlas.activations.layout import FACTS, FORMAT, FORMAT_VERSION, ROW_DATASETS
from atlas.activations.store import Shard
from atlas.activations.window import bytes_of_rows
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit
from atlas.hdf5 import new_hdf5
from atlas.models.load import LoadedModel

_MEANS = ("mean", "mean_regular")


def write_facts(shard: Shard, n_files: int, target: Path) -> None:
    """Write what is known of a shard beside its rows; `n_files` are the files of facts that its corpus has.

    Tokens, documents and norms of all rows are kept: 13 bytes a row, and 4 for each hook.
    """
    with new_hdf5(target) as file:
        described = {"format": FORMAT, "format_version": FORMAT_VERSION, "complete": True, "contents": FACTS}
        file.attrs.update(described | shard.identity | {"n_shards": n_files})
        for name, kind in ROW_DATASETS.items():
            _put(file, name, getattr(shard, name).astype(kind))
        for hook in shard.hooks:
            statistics = shard.statistics(hook)
            group = file.create_group(f"hooks/{hook}")
            for name, values in {"norms": shard.norms(hook), **{name: statistics[name] for name in _MEANS}}.items():
                _put(group, name, values)
            group.attrs.update({name: value for name, value in statistics.items() if name not in _MEANS})


def keep_facts(shard: Path, statistics_shards: int, target: Path) -> None:
    """Write the facts of a stored shard (see `write_facts`)."""
    write_facts(Shard.open(shard), statistics_shards, target)


def harvest_facts(
    loaded: LoadedModel, split: TokenSplit, shard: int, harvest: Harvest, hooks: Sequence[str], target: Path
) -> None:
    """Run one shard through the model and keep the facts alone.

    The rows are in memory meanwhile; above `harvest.window_memory_mb` in an activation file beside `target`, which is
    then deleted. Raises what `harvest_shard` does.
    """
    n_rows = shard_contexts(split, shard, harvest).size * split.context_length
    widths: dict[str, Any] = dict.fromkeys(hooks, loaded.identity["d_model"])
    if bytes_of_rows(n_rows, widths, harvest.storage_dtype) <= harvest.window_memory_mb * 1e6:
        write_facts(harvest_window_shard(loaded, split, shard, harvest, hooks), harvest.statistics_shards, target)
        return
    rows = target.with_name(f"{target.name}.rows")
    try:
        harvest_shard(loaded, split, shard, harvest, hooks, rows)
        write_facts(Shard.open(rows), harvest.statistics_shards, target)
    finally:
        rows.unlink(missing_ok=True)


def _put(group: h5py.Group, name: str, values: np.ndarray) -> None:
    dataset = group.create_dataset(name, data=values)
    dataset.attrs["xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(dataset[...]))
