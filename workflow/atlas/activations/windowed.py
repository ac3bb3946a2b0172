"""Input of a stream that passes through windows, and its record of the windows that it passed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from atlas.activations.store import Shard


@dataclass(frozen=True)
class Windowed:
    """Windows of the corpora that a stream passes through (atlas.activations.plan), and what is known beforehand.

    `facts` are the files of each corpus' first part, from which medians and means are taken. `rows` are the numbers of
    rows of all shards of a corpus, `documents` the document number of each of its counted rows, in any order.
    """

    window_shards: int
    facts: Mapping[str, Sequence[Shard]]
    rows: Mapping[str, Sequence[int]]
    documents: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, shards: Mapping[str, Sequence[Shard]], facts: Mapping[str, Sequence[Shard]], window_shards: int):
        """Make it from shards that are all at hand."""
        rows = {name: [shard.n_rows for shard in group] for name, group in shards.items()}
        documents = {name: np.concatenate([s.document[s.counted] for s in group]) for name, group in shards.items()}
        return cls(window_shards, facts, rows, documents)


@dataclass
class Account:
    """Record of the windows that a stream has passed.

    `windows`: trainable rows and blocks of each window, by ``<corpus>/<number>``. `pairs`: of each step, how many pairs
    of rows are of one document, each row with itself included.
    """

    windows: dict[str, list[int]] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
