"""Measures of evaluation as functions of the sums of documents, for any selection of them. docs/twins.md."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from atlas.evaluation.document_sums import ALL, LOSS, REGULAR, DocumentSums

# How often each document counts, (selections, groups), to one value per selection.
Statistic = Callable[[DocumentSums, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TwinMeasure:
    """A number of metrics.json, under its name there, from the sums of one family."""

    name: str
    family: str
    statistic: Statistic
    higher_is_better: bool = True

    def value(self, sums: DocumentSums) -> float:
        """Compute the measure over all documents."""
        return float(self.statistic(sums, np.ones((1, self.n_groups(sums))))[0])

    def n_groups(self, sums: DocumentSums) -> int:
        """Count the groups of documents."""
        return len(sums.values[f"{self.family}/count"])

    def better_by(self, own: DocumentSums, other: DocumentSums, weights: np.ndarray) -> np.ndarray:
        """Compute by how much `own` is better than `other` for each selection of documents; above 0 is better."""
        sign = 1 if self.higher_is_better else -1
        return sign * (self.statistic(own, weights) - self.statistic(other, weights))


def _explained(family: str, sums: DocumentSums, weights: np.ndarray) -> np.ndarray:
    """1 - sum |e|^2 / sum |x - mean|^2, each selection with its own mean."""
    count, square, error, products = (
        sums.values[f"{family}/{name}"] for name in ("count", "square", "error_square", "row_products")
    )
    of_mean = np.einsum("sg,gh,sh->s", weights, products, weights, optimize=True) / (weights @ count)
    return 1 - weights @ error / (weights @ square - of_mean)


def _recovered(ablation: str, suffix: str, sums: DocumentSums, weights: np.ndarray) -> np.ndarray:
    ablated, spliced, clean = (sums.values[f"{LOSS}/{name}"] for name in (ablation + suffix, "sae" + suffix, "clean"))
    return weights @ (ablated - spliced) / (weights @ (ablated - clean))


def _added(suffix: str, sums: DocumentSums, weights: np.ndarray) -> np.ndarray:
    values = sums.values
    return weights @ (values[f"{LOSS}/sae{suffix}"] - values[f"{LOSS}/clean"]) / (weights @ values[f"{LOSS}/count"])


def _kl(suffix: str, sums: DocumentSums, weights: np.ndarray) -> np.ndarray:
    return weights @ sums.values[f"{LOSS}/kl{suffix}"] / (weights @ sums.values[f"{LOSS}/count"])


MEASURES = (
    TwinMeasure("explained_variance_regular", REGULAR, partial(_explained, REGULAR)),
    TwinMeasure("explained_variance", ALL, partial(_explained, ALL)),
    TwinMeasure("loss_recovered_mean_regular", LOSS, partial(_recovered, "mean", "_regular")),
    TwinMeasure("loss_recovered_mean", LOSS, partial(_recovered, "mean", "")),
    TwinMeasure("loss_recovered_zero", LOSS, partial(_recovered, "zero", "")),
    TwinMeasure("delta_loss_regular", LOSS, partial(_added, "_regular"), higher_is_better=False),
    TwinMeasure("delta_loss", LOSS, partial(_added, ""), higher_is_better=False),
    TwinMeasure("kl_regular", LOSS, partial(_kl, "_regular"), higher_is_better=False),
    TwinMeasure("kl", LOSS, partial(_kl, ""), higher_is_better=False),
)
