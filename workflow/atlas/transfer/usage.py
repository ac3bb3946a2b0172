"""Compare the use of a dictionary on two corpora or models: rates of latents, and each latent on the same token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.store import Shard
from atlas.evaluation.chunks import chunk_rows, row_chunks
from atlas.latents.drift import FiringCounts
from atlas.statistics.clusters import Groups, cluster_interval
from atlas.training.sae import Sae


@dataclass(frozen=True, eq=False)
class Side:
    """A dictionary and the rows that it is used on: `sae` as it is fed there, eval shards, hook."""

    sae: Sae
    shards: Sequence[Shard]
    hook: str

    @property
    def groups(self) -> Groups:
        """Groups of documents."""
        return Groups.of(np.concatenate([shard.document[shard.counted] for shard in self.shards]))

    def chunks(self) -> Iterator[tuple[Float[Tensor, "rows n_latents"], np.ndarray]]:
        """Latents of counted rows, with their documents, a chunk of rows at a time."""
        for shard, start, stop in row_chunks(self.shards, chunk_rows(self.sae)):
            counted = shard.counted[start:stop]
            rows = shard.read_rows(self.hook, start, stop)[torch.from_numpy(counted)]
            yield self.sae.encode(rows.to(self.sae.W_dec.device)), shard.document[start:stop][counted]


def same_tokens(home: Side, away: Side) -> bool:
    """Return whether both sides have the same tokens at the same places, so that rows can be held against each
    other.
    """
    shapes = [[shard.n_rows for shard in side.shards] for side in (home, away)]
    return shapes[0] == shapes[1] and all(
        (ours.tokens == theirs.tokens).all() and (ours.counted == theirs.counted).all()
        for ours, theirs in zip(home.shards, away.shards, strict=True)
    )


@torch.inference_mode()
def firings(side: Side) -> FiringCounts:
    """Firings of every latent in every group of documents."""
    groups = side.groups
    by_group, tokens = np.zeros((side.sae.n_latents, groups.count), np.int64), np.zeros(groups.count, np.int64)
    for latents, document in side.chunks():
        group = groups.index(document)
        row, latent = (index.cpu().numpy() for index in (latents > 0).nonzero(as_tuple=True))
        np.add.at(by_group, (latent, group[row]), 1)
        tokens += np.bincount(group, minlength=groups.count)
    return FiringCounts(by_group, tokens)


class TokenByToken:
    """Sums over tokens that stand on both sides: what fires there, and how a latent's values go together.

    Everything is also taken with the other side's rows displaced by half a chunk, thousands of tokens: what two uses
    of a dictionary have in common that have nothing to do with the token.
    """

    def __init__(self, home: Side, away: Side):
        n_latents, groups = home.sae.n_latents, home.groups
        self._kept = {name: np.zeros(groups.count) for name in ("matched", "displaced")}
        self._tokens = np.zeros(groups.count)
        self._product = {name: torch.zeros(n_latents, dtype=torch.float64) for name in self._kept}
        self._sums = {name: torch.zeros(n_latents, dtype=torch.float64) for name in ("x", "y", "xx", "yy")}
        for (ours, document), (theirs, _) in zip(home.chunks(), away.chunks(), strict=True):
            self._add(ours.cpu(), theirs.cpu(), groups.index(document))

    @torch.inference_mode()
    def _add(self, ours: Tensor, theirs: Tensor, group: np.ndarray) -> None:
        self._tokens += np.bincount(group, minlength=len(self._tokens))
        for name, value in (("x", ours), ("y", theirs)):
            self._sums[name] += value.sum(0, dtype=torch.float64)
            self._sums[2 * name] += value.square().sum(0, dtype=torch.float64)
        for name, other in (("matched", theirs), ("displaced", theirs.roll(len(theirs) // 2, 0))):
            self._product[name] += (ours * other).sum(0, dtype=torch.float64)
            both, either = ((ours > 0) & (other > 0)).sum(1), ((ours > 0) | (other > 0)).sum(1)
            kept = torch.where(either > 0, both / either.clamp(min=1), 1.0)
            self._kept[name] += np.bincount(group, kept.numpy(), len(self._tokens))

    def turnover(self, name: str = "matched") -> float:
        """Mean over tokens of 1 − |A ∩ B| / |A ∪ B|, A and B the latents that fire on a token here and there."""
        return float(1 - self._kept[name].sum() / self._tokens.sum())

    def turnover_interval(self) -> list[float] | None:
        """Its 95 % interval by documents."""
        kept, tokens = self._kept["matched"], self._tokens
        return cluster_interval(lambda draws: 1 - (draws @ kept) / (draws @ tokens), len(tokens))

    def correlation(self, name: str = "matched") -> Float[np.ndarray, " n_latents"]:
        """Pearson correlation, over tokens, of each latent's values here and there; NaN where a side is constant."""
        n, s = self._tokens.sum(), self._sums
        covariance = self._product[name] - s["x"] * s["y"] / n
        spread = [(s[2 * side] - s[side] ** 2 / n).clamp(min=0) for side in "xy"]
        below = (spread[0] * spread[1]).sqrt()
        return torch.where(below > 0, covariance / below, torch.nan).numpy()
