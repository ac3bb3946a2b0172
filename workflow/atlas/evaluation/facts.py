"""Read for evaluation from the store: means of counted rows, and what an SAE was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.activations.sampling import median_norm
from atlas.activations.store import Shard
from atlas.hook_points import SaeHooks
from atlas.massive import MASSIVE_FACTOR


@dataclass(frozen=True)
class HookFacts:
    """Of one hook's counted training rows: median norm, and mean over those that are no massive activations."""

    median_norm: float
    mean: Float[Tensor, " d_model"]

    @property
    def limit(self) -> float:
        """Norm above which a row is a massive activation."""
        return MASSIVE_FACTOR * self.median_norm


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of the training store for evaluation: scale and centre of what is read and of what is reconstructed
    (the same for an SAE), and which text was seen.
    """

    source: HookFacts
    target: HookFacts
    fingerprints: Mapping[str, str]

    @classmethod
    def of(cls, shards: Mapping[str, Sequence[Shard]], hook: str) -> "TrainingFacts":
        """From the training shards of each corpus; `hook` names two hooks for a transcoder."""
        every = [shard for group in shards.values() for shard in group]
        hooks = SaeHooks.parse(hook)
        facts = {name: HookFacts(median_norm(every, name), regular_mean(every, name)) for name in hooks.names}
        fingerprints = {name: group[0].identity["corpus_fingerprint"] for name, group in shards.items()}
        return cls(facts[hooks.source], facts[hooks.target], fingerprints)

    def massive(
        self, hooks: SaeHooks, rows: Float[torch.Tensor, "*n d_model"], targets: Float[torch.Tensor, "*n d_target"]
    ) -> Bool[torch.Tensor, "*n"]:
        """Return which rows are massive activations at either hook; an SAE's targets are its rows."""
        massive = rows.norm(dim=-1) > self.source.limit
        return massive | (targets.norm(dim=-1) > self.target.limit) if hooks.is_transcoder else massive


def counted_mean(shards: Sequence[Shard], hook: str) -> Float[Tensor, " d_model"]:
    """Float64 mean of the counted rows of all shards, from the statistics in the store."""
    return _mean(shards, hook, "")


def regular_mean(shards: Sequence[Shard], hook: str) -> Float[Tensor, " d_model"]:
    """The same over rows that are no massive activations: a few of those shift it by more than all others vary."""
    return _mean(shards, hook, "_regular")


def _mean(shards: Sequence[Shard], hook: str, suffix: str) -> Float[Tensor, " d_model"]:
    parts = [shard.statistics(hook) for shard in shards]
    total = sum(part[f"count{suffix}"] for part in parts)
    return torch.from_numpy(sum(part[f"mean{suffix}"] * (part[f"count{suffix}"] / total) for part in parts))
