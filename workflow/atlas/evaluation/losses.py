"""What splicing an SAE into a model costs: losses beside the clean and the ablated. docs/metrics.md, section 2."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.activations.store import Shard
from atlas.config.study import Evaluation
from atlas.evaluation.bootstrap import Groups, bootstrap_interval
from atlas.models.load import LoadedModel
from atlas.models.objectives import divergence, kl, loss_mask, per_token_loss

# What `loss` is for each objective; for all but the first it is a distance from the clean output, 0 when clean.
LOSS_KINDS = {
    "causal_lm": "cross-entropy per token, nats",
    "masked_lm": "KL to the clean prediction per token, nats",
    "sequence_classification": "KL to the clean prediction per context, nats",
    "embedding": "1 - cosine to the clean embedding per context",
}


@dataclass(frozen=True)
class ContextBatch:
    """Consecutive whole contexts of one eval shard; `first` counts contexts from the corpus' start."""

    shard: Shard
    first: int
    row: int
    n_contexts: int

    @property
    def tokens(self) -> Int[Tensor, "contexts position"]:
        """Token ids."""
        return torch.from_numpy(self._column(self.shard.tokens).astype(np.int64))

    @property
    def counted(self) -> Bool[Tensor, "contexts position"]:
        """False for special tokens and padding."""
        return torch.from_numpy(self._column(self.shard.counted))

    @property
    def document(self) -> np.ndarray:
        """Document index of each token, (contexts, position)."""
        return self._column(self.shard.document)

    def rows(self, hook: str) -> Float[Tensor, "contexts position d_model"]:
        """Stored activations, float32."""
        length = self.shard.context_length
        rows = self.shard.read_rows(hook, self.row, self.row + self.n_contexts * length)
        return rows.float().view(self.n_contexts, length, -1)

    def _column(self, values: np.ndarray) -> np.ndarray:
        length = self.shard.context_length
        return values[self.row : self.row + self.n_contexts * length].reshape(self.n_contexts, length)


def context_batches(shards: Sequence[Shard], n_contexts: int, batch_contexts: int) -> Iterator[ContextBatch]:
    """The first `n_contexts` contexts of a corpus, at most `batch_contexts` at a time."""
    first = 0
    for shard in shards:
        available = min(shard.n_rows // shard.context_length, n_contexts - first)
        for start in range(0, available, batch_contexts):
            size = min(batch_contexts, available - start)
            yield ContextBatch(shard, first + start, start * shard.context_length, size)
        first += available


def unit_losses(
    loaded: LoadedModel,
    input_ids: Int[Tensor, "contexts position"],
    hidden: Float[Tensor, "contexts position d_model"],
    clean: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts units"]:
    """Loss of the outcome `hidden`; units are positions, or one per context: see `LOSS_KINDS`."""
    if loaded.objective == "causal_lm":
        return per_token_loss(loaded, input_ids, hidden)
    if loaded.objective == "masked_lm":
        return kl(loaded, clean, hidden)
    return divergence(loaded, clean, hidden)[:, None]


def unit_kl(
    loaded: LoadedModel,
    hidden: Float[Tensor, "contexts position d_model"],
    clean: Float[Tensor, "contexts position d_model"],
) -> Float[Tensor, "contexts units"] | None:
    """KL(clean ‖ hidden) in the units of `unit_losses`; None for an objective without a predicted distribution.

    A causal model predicts token p at position p − 1: like the loss, the value stands at p.
    """
    if loaded.objective == "embedding":
        return None
    if loaded.objective == "sequence_classification":
        return divergence(loaded, clean, hidden)[:, None]
    values = kl(loaded, clean, hidden)
    if loaded.objective == "masked_lm":
        return values
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def unit_mask(
    loaded: LoadedModel, input_ids: Int[Tensor, "contexts position"], counted: Bool[Tensor, "contexts position"]
) -> Bool[Tensor, "contexts units"]:
    """Units whose loss counts: positions whose own token is counted and has a loss; contexts with a counted token."""
    if loaded.objective == "causal_lm":
        return loss_mask(loaded, input_ids) & counted
    return counted if loaded.objective == "masked_lm" else counted.any(dim=1, keepdim=True)


@dataclass(frozen=True)
class LossTable:
    """One value per unit that counts, flattened: losses, KL to the clean output, and the unit's document."""

    clean: np.ndarray
    zero: np.ndarray
    mean: np.ndarray
    sae: np.ndarray
    kl: np.ndarray | None
    document: np.ndarray


def loss_metrics(table: LossTable, objective: str, settings: Evaluation) -> tuple[dict[str, Any], dict[str, str]]:
    """Losses, their differences and recovered shares with intervals; reasons for what is None."""
    result: dict[str, Any] = {"loss_kind": LOSS_KINDS[objective], "loss_units": len(table.clean)}
    reasons: dict[str, str] = {}
    sums = _Sums(table, settings.bootstrap_samples)
    for name in ("clean", "sae", "zero", "mean"):
        result[f"loss_{name}"] = sums.mean(name)
    result["delta_loss"] = sums.mean("delta")
    result["delta_loss_interval"] = sums.interval("delta", "count")
    result["kl"] = None if table.kl is None else sums.mean("kl")
    result["kl_interval"] = None if table.kl is None else sums.interval("kl", "count")
    if table.kl is None:
        reason = f"objective {objective} predicts no distribution"
        reasons |= {"atlas_kl": reason, "atlas_kl_interval": reason}
    for ablation in ("zero", "mean"):
        name = f"loss_recovered_{ablation}"
        gap = result[f"loss_{ablation}"] - result["loss_clean"]
        if gap < settings.min_loss_gap:
            result[name] = result[f"{name}_interval"] = None
            reason = (
                f"{ablation} ablation raises the loss by {gap:.4g}, less than evaluation.min_loss_gap "
                f"{settings.min_loss_gap:g}: the ratio would be noise"
            )
            reasons |= {f"atlas_{name}": reason, f"atlas_{name}_interval": reason}
            continue
        result[name] = sums.ratio(f"{ablation}_minus_sae", f"{ablation}_minus_clean")
        result[f"{name}_interval"] = sums.interval(f"{ablation}_minus_sae", f"{ablation}_minus_clean")
    for name, value in result.items():
        if name.endswith("_interval") and value is None:
            reasons.setdefault(f"atlas_{name}", "fewer than two documents, or a draw without a loss gap")
    return result, reasons


class _Sums:
    """Float64 sums of a loss table per group of the bootstrap."""

    def __init__(self, table: LossTable, samples: int):
        groups = Groups.of(table.document)
        index, self._n_groups, self._samples = groups.index(table.document), groups.count, samples
        values = {name: getattr(table, name).astype(np.float64) for name in ("clean", "zero", "mean", "sae")}
        values["delta"] = values["sae"] - values["clean"]
        for ablation in ("zero", "mean"):
            for other in ("sae", "clean"):
                values[f"{ablation}_minus_{other}"] = values[ablation] - values[other]
        if table.kl is not None:
            values["kl"] = table.kl.astype(np.float64)
        values["count"] = np.ones(len(index))
        self._sums = {name: np.bincount(index, column, self._n_groups) for name, column in values.items()}

    def mean(self, name: str) -> float:
        return self.ratio(name, "count")

    def ratio(self, above: str, below: str) -> float:
        return float(self._sums[above].sum() / self._sums[below].sum())

    def interval(self, above: str, below: str) -> list[float] | None:
        top, bottom = self._sums[above], self._sums[below]
        return bootstrap_interval(lambda draws: (draws @ top) / (draws @ bottom), self._n_groups, self._samples)
