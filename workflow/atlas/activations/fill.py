"""Fill the windows of a stream by forward passes. Rows stay in host memory or in files until no SAE needs them."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from atlas.activations.harvest import harvest_shard, harvest_window_shard, is_shard_of
from atlas.activations.plan import Window
from atlas.activations.store import Shard
from atlas.activations.window import WindowShards, bytes_of_rows
from atlas.config.data import Harvest
from atlas.corpora.tokens import TokenSplit
from atlas.errors import StoreError
from atlas.models.load import LoadedModel

log = logging.getLogger(__name__)


class Filler:
    """Fills windows of training corpora with the rows of `hooks`, and empties them.

    A window is in host memory where it fits into `harvest.window_memory_mb` beside those that are there already, else
    in activation files below `folder`. Files that an ended process left there are used again if they are whole.
    """

    def __init__(
        self,
        splits: Mapping[str, TokenSplit],
        harvest: Harvest,
        hooks: Sequence[str],
        d_model: int,
        folder: Path,
    ):
        self._splits, self._harvest, self._hooks, self._folder = splits, harvest, list(hooks), Path(folder)
        self._widths = dict.fromkeys(hooks, d_model)
        self._in_memory: dict[Window, int] = {}
        self.at_hand: set[Window] = set()
        self.shards = {name: WindowShards(name) for name in splits}

    def size(self, window: Window) -> int:
        """Return the bytes of a window's rows."""
        harvest = self._harvest.of(window.corpus)
        n_rows = sum(harvest.shard_sizes("train")[window.first : window.stop])
        return bytes_of_rows(n_rows, self._widths, harvest.storage_dtype)

    def require_space(self, largest: int) -> None:
        """Raise StoreError when windows of so many bytes at once do not fit into memory and disk."""
        on_disk = largest - self._harvest.window_memory_mb * 1e6
        if on_disk <= 0:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free + sum(
            path.stat().st_size for path in self._folder.rglob("*.h5") if path.is_file()
        )
        if on_disk > free:
            raise StoreError(
                f"{self._folder}: windows of {largest / 1e9:.3g} GB are held at once, of which window_memory_mb lets "
                f"{self._harvest.window_memory_mb / 1e3:g} GB be in memory; {on_disk / 1e9:.3g} GB go to this disk, "
                f"which has {free / 1e9:.3g} GB free; lower window_shards or shard_tokens, raise window_memory_mb, or "
                "free space"
            )

    def fill(self, window: Window, loaded: LoadedModel, before_batch: Callable[[], None]) -> None:
        """Run a window's text through the model. Raises what `harvest_shard` does, and what `before_batch` raises."""
        size, used = self.size(window), sum(self._in_memory.values())
        in_memory = used + size <= self._harvest.window_memory_mb * 1e6
        split, harvest = self._splits[window.corpus], self._harvest.of(window.corpus)
        for number in window.shards:
            if in_memory:
                shard = harvest_window_shard(loaded, split, number, harvest, self._hooks, before_batch)
            else:
                shard = self._file(loaded, split, number, harvest, before_batch)
            self.shards[window.corpus].put(number, shard)
        if in_memory:
            self._in_memory[window] = size
        self.at_hand.add(window)

    def empty(self, window: Window) -> None:
        """Remove a window from memory, and delete its files."""
        for number in window.shards:
            shard = self.shards[window.corpus].drop(number)
            if window not in self._in_memory:
                shard.path.unlink(missing_ok=True)
        self._in_memory.pop(window, None)
        self.at_hand.discard(window)

    def _file(
        self,
        loaded: LoadedModel,
        split: TokenSplit,
        number: int,
        harvest: Harvest,
        before_batch: Callable[[], None],
    ) -> Shard:
        path = self._folder / split.corpus / f"train-{number:03d}.h5"
        if path.exists():
            try:
                shard = Shard.open(path)
                if is_shard_of(shard.identity, loaded, split, number, harvest) and set(self._hooks) <= set(shard.hooks):
                    log.info("%s: filled by an earlier process, used again", path)
                    return shard
            except StoreError as error:
                log.warning("%s; it is filled anew", error)
        harvest_shard(loaded, split, number, harvest, self._hooks, path, before_batch)
        return Shard.open(path)
