"""What splicing an SAE into a model costs: losses beside the clean and the ablated. docs/metrics.md, section 2."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from atlas.config.study import Evaluation
from atlas.evaluation.bootstrap import Groups, bootstrap_interval
from atlas.evaluation.units import LOSS_KINDS


@dataclass(frozen=True)
class LossTable:
    """One value per unit that counts, flattened: losses, KL to the clean output, and the unit's document."""

    clean: np.ndarray
    zero: np.ndarray
    mean: np.ndarray
    sae: np.ndarray
    kl: np.ndarray | None
    document: np.ndarray


def loss_metrics(
    table: LossTable, objective: str, settings: Evaluation, unreached: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Losses, their differences and recovered shares with intervals; reasons for what is None.

    `unreached` is why nothing that is spliced in can change the output, if so: then only the clean loss is defined.
    """
    if unreached is not None:
        return _undefined(table, objective, unreached)
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
    least = getattr(settings.min_loss_gap, objective)
    for ablation in ("zero", "mean"):
        name = f"loss_recovered_{ablation}"
        gap = result[f"loss_{ablation}"] - result["loss_clean"]
        if gap < least:
            result[name] = result[f"{name}_interval"] = None
            reason = (
                f"{ablation} ablation raises the loss by {gap:.4g}, less than evaluation.min_loss_gap.{objective} "
                f"{least:g}: the ratio would be noise"
            )
            reasons |= {f"atlas_{name}": reason, f"atlas_{name}_interval": reason}
            continue
        result[name] = sums.ratio(f"{ablation}_minus_sae", f"{ablation}_minus_clean")
        result[f"{name}_interval"] = sums.interval(f"{ablation}_minus_sae", f"{ablation}_minus_clean")
    for name, value in result.items():
        if name.endswith("_interval") and value is None:
            reasons.setdefault(f"atlas_{name}", "fewer than two documents, or a draw without a loss gap")
    return result, reasons


def _undefined(table: LossTable, objective: str, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    names = [f"loss_{name}" for name in ("sae", "zero", "mean")] + ["delta_loss", "kl"]
    names += [f"loss_recovered_{ablation}" for ablation in ("zero", "mean")]
    names += [f"{name}_interval" for name in names if not name.startswith("loss_") or "recovered" in name]
    known = {"loss_kind": LOSS_KINDS[objective], "loss_units": len(table.clean)}
    known["loss_clean"] = float(table.clean.mean())
    return known | dict.fromkeys(names), {f"atlas_{name}": reason for name in names}


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
