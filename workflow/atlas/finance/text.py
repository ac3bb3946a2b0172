"""The evaluation rows of one corpus with the kinds of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.activations.store import Shard
from atlas.finance.kinds import TokenTexts
from atlas.statistics.clusters import Groups


@dataclass(frozen=True, eq=False)
class KindedRows:
    """All eval shards of a corpus, end to end. `usable`: counted, and no massive activation at the hook."""

    shards: Sequence[Shard]
    hook: str
    tokens: Int[np.ndarray, " rows"]
    document: Int[np.ndarray, " rows"]
    counted: Bool[np.ndarray, " rows"]
    usable: Bool[np.ndarray, " rows"]
    kinds: Int[np.ndarray, " rows"]
    groups: Groups

    @classmethod
    def of(cls, shards: Sequence[Shard], hook: str, limit: float, texts: TokenTexts) -> "KindedRows":
        """`limit` is the norm above which a row is a massive activation."""
        columns = {
            name: np.concatenate([getattr(s, name) for s in shards]) for name in ("tokens", "document", "counted")
        }
        regular = np.concatenate([shard.norms(hook) for shard in shards]) <= limit
        kinds, groups = texts.kinds(**columns), Groups.of(columns["document"][columns["counted"]])
        return cls(shards, hook, **columns, usable=columns["counted"] & regular, kinds=kinds, groups=groups)

    @property
    def name(self) -> str:
        """Name of the corpus."""
        return str(self.shards[0].identity["corpus"])

    def read(self, rows: Int[np.ndarray, " some"]) -> Float[Tensor, "some d_model"]:
        """Stored activations of rising rows, float32."""
        parts, begin = [], 0
        for shard in self.shards:
            inside = rows[(rows >= begin) & (rows < begin + shard.n_rows)] - begin
            if len(inside):
                first = int(inside[0])
                stored = shard.read_rows(self.hook, first, int(inside[-1]) + 1)
                parts.append(stored[torch.from_numpy(inside - first)].float())
            begin += shard.n_rows
        return torch.cat(parts)
