"""Corpora with planted activations: tokens are numbers, their rows are chosen."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from atlas.finance.text import KindedRows
from atlas.statistics.clusters import Groups
from atlas.training.sae import Sae

HOOK = "resid_post.1"
WIDTH = 8


@dataclass
class FakeShard:
    """What is read of `atlas.activations.store.Shard`."""

    rows: torch.Tensor
    identity: dict = field(default_factory=lambda: {"corpus": "finance"})

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def read_rows(self, hook: str, start: int, stop: int) -> torch.Tensor:
        assert hook == HOOK
        return self.rows[start:stop].clone()


def corpus(rows, tokens, document, kinds=None, usable=None, name="finance", n_shards=2) -> KindedRows:
    """Rows of a corpus in several shards; every row counts."""
    rows = torch.as_tensor(np.asarray(rows), dtype=torch.float32)
    counted = np.ones(len(rows), bool)
    cuts = np.linspace(0, len(rows), n_shards + 1).astype(int)
    shards = [FakeShard(rows[a:b], {"corpus": name}) for a, b in pairwise(cuts)]
    kinds = np.full(len(rows), 5, np.uint8) if kinds is None else np.asarray(kinds, np.uint8)
    usable = counted if usable is None else usable
    document = np.asarray(document)
    return KindedRows(shards, HOOK, np.asarray(tokens, np.int64), document, counted, usable, kinds, Groups.of(document))


def one_hot_sae() -> Sae:
    """A latent for each direction of the axes: reconstructs what is not negative exactly."""
    eye = torch.eye(WIDTH)
    return Sae("relu", eye, torch.zeros(WIDTH), eye.clone(), torch.zeros(WIDTH))
