"""Measure the cost of splicing an SAE into a model, beside clean and ablated losses. docs/metrics.md, section 2."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from atlas.config.study import Evaluation
from atlas.evaluation.units import LOSS_KINDS
from atlas.statistics.clusters import TOO_FEW, Groups, cluster_interval

REGULAR = "_regular"


@dataclass(frozen=True)
class LossTable:
    """One value per unit that counts, flattened: losses, KL to the clean output, and the unit's document."""

    clean: np.ndarray
    zero: np.ndarray
    mean: np.ndarray
    sae: np.ndarray
    kl: np.ndarray | None
    document: np.ndarray
    regular: "RegularLosses | None" = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the metrics that are known: of all counted rows, and of regular ones."""
        return ("",) if self.regular is None else ("", REGULAR)

    @property
    def ablations(self) -> tuple[tuple[str, str], ...]:
        """Ablations, with their suffix, of which a share is recovered.

        Zero ablation of regular rows alone is not computed: it costs more than knowing nothing at most hooks, and the
        mean is what to compare with.
        """
        return tuple(pair for pair in product(("zero", "mean"), self.suffixes) if pair != ("zero", REGULAR))


@dataclass(frozen=True)
class RegularLosses:
    """The same units where massive activations keep their clean rows: SAE or mean row at the other counted positions.

    `n_massive` counts the rows that keep theirs, `n_rows` all counted rows of the contexts that were run.
    """

    sae: np.ndarray
    mean: np.ndarray
    kl: np.ndarray | None
    n_massive: int
    n_rows: int


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
    sums = _Sums(table)
    for name in ("clean", "sae", "zero", "mean"):
        result[f"loss_{name}"] = sums.mean(name)
    if table.regular is not None:
        result["loss_massive_rows"], result["loss_rows"] = table.regular.n_massive, table.regular.n_rows
        for name in ("sae", "mean"):
            result[f"loss_{name}{REGULAR}"] = sums.mean(f"{name}{REGULAR}")
    least = getattr(settings.min_loss_gap, objective)
    for suffix in table.suffixes:
        result[f"delta_loss{suffix}"] = sums.mean(f"delta{suffix}")
        result[f"delta_loss{suffix}_interval"] = sums.interval(f"delta{suffix}", "count")
        result[f"kl{suffix}"] = None if table.kl is None else sums.mean(f"kl{suffix}")
        result[f"kl{suffix}_interval"] = None if table.kl is None else sums.interval(f"kl{suffix}", "count")
        if table.kl is None:
            reason = f"objective {objective} predicts no distribution"
            reasons |= {f"atlas_kl{suffix}": reason, f"atlas_kl{suffix}_interval": reason}
    for ablation, suffix in table.ablations:
        name = f"loss_recovered_{ablation}{suffix}"
        gap = result[f"loss_{ablation}{suffix}"] - result["loss_clean"]
        if gap < least:
            result[name] = result[f"{name}_interval"] = None
            reason = (
                f"{ablation} ablation{' of regular rows' * bool(suffix)} raises the loss by {gap:.4g}, less than "
                f"evaluation.min_loss_gap.{objective} {least:g}: the ratio would be noise"
            )
            reasons |= {f"atlas_{name}": reason, f"atlas_{name}_interval": reason}
            continue
        columns = f"{ablation}{suffix}_minus_sae", f"{ablation}{suffix}_minus_clean"
        result[name], result[f"{name}_interval"] = sums.ratio(*columns), sums.interval(*columns)
    for name, value in result.items():
        if name.endswith("_interval") and value is None:
            reasons.setdefault(f"atlas_{name}", TOO_FEW)
    return result, reasons


def _undefined(table: LossTable, objective: str, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    names = [f"loss_{name}" for name in ("sae", "zero", "mean")]
    names += [f"loss_{name}{REGULAR}" for name in ("sae", "mean") if table.regular is not None]
    names += [f"{name}{suffix}" for suffix in table.suffixes for name in ("delta_loss", "kl")]
    names += [f"loss_recovered_{ablation}{suffix}" for ablation, suffix in table.ablations]
    names += [f"{name}_interval" for name in names if not name.startswith("loss_") or "recovered" in name]
    known = {"loss_kind": LOSS_KINDS[objective], "loss_units": len(table.clean)}
    known["loss_clean"] = float(table.clean.mean())
    if table.regular is not None:
        known |= {"loss_massive_rows": table.regular.n_massive, "loss_rows": table.regular.n_rows}
    return known | dict.fromkeys(names), {f"atlas_{name}": reason for name in names}


class _Sums:
    """Float64 sums of a loss table per group of documents."""

    def __init__(self, table: LossTable):
        groups = Groups.of(table.document)
        index, self._n_groups = groups.index(table.document), groups.count
        values = {name: getattr(table, name).astype(np.float64) for name in ("clean", "zero", "mean", "sae")}
        divergences = {"kl": table.kl}
        if table.regular is not None:
            values |= {f"{name}{REGULAR}": getattr(table.regular, name).astype(np.float64) for name in ("mean", "sae")}
            divergences[f"kl{REGULAR}"] = table.regular.kl
        values |= {name: kl.astype(np.float64) for name, kl in divergences.items() if kl is not None}
        for ablation, suffix in table.ablations:
            values[f"delta{suffix}"] = values[f"sae{suffix}"] - values["clean"]
            for other in (f"sae{suffix}", "clean"):
                name = f"{ablation}{suffix}_minus_{other.removesuffix(suffix)}"
                values[name] = values[f"{ablation}{suffix}"] - values[other]
        values["count"] = np.ones(len(index))
        self._sums = {name: np.bincount(index, column, self._n_groups) for name, column in values.items()}

    def mean(self, name: str) -> float:
        return self.ratio(name, "count")

    def ratio(self, above: str, below: str) -> float:
        return float(self._sums[above].sum() / self._sums[below].sum())

    def interval(self, above: str, below: str) -> list[float] | None:
        top, bottom = self._sums[above], self._sums[below]
        return cluster_interval(lambda draws: (draws @ top) / (draws @ bottom), self._n_groups)
