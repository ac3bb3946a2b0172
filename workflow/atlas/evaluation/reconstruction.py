"""Reconstruction: float64 sums over all rows, never a mean of per-batch ratios. docs/metrics.md, section 2."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.errors import EvaluationError
from atlas.statistics.clusters import cluster_interval


@dataclass
class ReconstructionSums:
    """Sums over the rows seen so far, per group; how rows are split into batches is immaterial.

    `update` adds in place: per group there is a vector of d_model numbers, too much to copy for every batch.

    Rows are taken relative to `center` (float64, (d_model,)), any fixed point near their mean: the sums of squares
    then lose no digits when the mean is large beside the spread. `row_sum`, `error_sum`: Σ(x − center), Σe with
    e = x − x̂; `square`, `error_square`: Σ‖x − center‖², Σ‖e‖²; `error_norm`: Σ‖e‖; `cosine`, `norm_ratio`:
    Σ cos(x, x̂), Σ ‖x̂‖/‖x‖.
    """

    center: Float[Tensor, " d_model"]
    count: Float[Tensor, " groups"]
    row_sum: Float[Tensor, "groups d_model"]
    square: Float[Tensor, " groups"]
    error_square: Float[Tensor, " groups"]
    error_sum: Float[Tensor, " d_model"]
    error_norm: Float[Tensor, ""]
    cosine: Float[Tensor, ""]
    norm_ratio: Float[Tensor, ""]

    @classmethod
    def start(cls, center: Float[Tensor, " d_model"], n_groups: int = 1) -> "ReconstructionSums":
        """Nothing seen yet, on the device of `center`."""
        center = center.double()

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=center.device)

        d_model = len(center)
        per_group = (zeros(n_groups), zeros(n_groups, d_model), zeros(n_groups), zeros(n_groups))
        return cls(center, *per_group, zeros(d_model), zeros(), zeros(), zeros())

    def update(
        self,
        rows: Float[Tensor, "rows d_model"],
        reconstruction: Float[Tensor, "rows d_model"],
        groups: Int[Tensor, " rows"] | None = None,
    ) -> None:
        """Add rows; `groups` is each row's group, all 0 if left out.

        A row or reconstruction that is zero has cosine 0; a row that is zero adds 0 to `norm_ratio`.
        """
        if groups is None:
            groups = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        rows, reconstruction = rows.double(), reconstruction.double()
        error, centred = rows - reconstruction, rows - self.center
        norm, other = rows.norm(dim=1), reconstruction.norm(dim=1)
        product = norm * other
        cosine = torch.where(product > 0, (rows * reconstruction).sum(1) / product.clamp(min=1e-300), 0.0)
        self.count.index_add_(0, groups, torch.ones_like(norm))
        self.row_sum.index_add_(0, groups, centred)
        self.square.index_add_(0, groups, centred.square().sum(1))
        self.error_square.index_add_(0, groups, error.square().sum(1))
        self.error_sum += error.sum(0)
        self.error_norm += error.norm(dim=1).sum()
        self.cosine += cosine.sum()
        self.norm_ratio += torch.where(norm > 0, other / norm.clamp(min=1e-300), 0.0).sum()

    def __add__(self, other: "ReconstructionSums") -> "ReconstructionSums":
        """Sums over the rows of both; they must share center and groups."""
        if not torch.equal(self.center, other.center):
            raise EvaluationError("sums with different centers cannot be added: start both with the same center")
        sums = (getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "center")
        return ReconstructionSums(self.center, *sums)

    def metrics(self) -> dict[str, float | None]:
        """fvu, explained_variance, fve_centered, cosine, l2_ratio, l2_loss; None where the rows do not vary."""
        n = self.count.sum().item()
        if n == 0:
            return dict.fromkeys(METRICS)
        variance = self._variance(np.ones((1, len(self.count))))[0]
        error = self.error_square.sum().item()
        centred_error = error - self.error_sum.square().sum().item() / n
        # Below the rounding of the sums, variance is zero: all rows are one point.
        varies = variance > 1e-12 * self.square.sum().item()
        fvu = error / variance if varies else None
        return {
            "fvu": fvu,
            "explained_variance": None if fvu is None else 1 - fvu,
            "fve_centered": 1 - centred_error / variance if varies else None,
            "cosine": self.cosine.item() / n,
            "l2_ratio": self.norm_ratio.item() / n,
            "l2_loss": self.error_norm.item() / n,
        }

    @property
    def n_clusters(self) -> int:
        """Groups of which a row was seen."""
        return int((self.count > 0).sum())

    def interval(self) -> list[float] | None:
        """95 % interval of explained_variance over groups; each set of groups has its own global mean."""
        seen = self.count.cpu().numpy() > 0

        def explained(draws: np.ndarray) -> np.ndarray:
            full = np.zeros((len(draws), len(seen)))
            full[:, seen] = draws
            return self.explained(full)

        return cluster_interval(explained, self.n_clusters, (-math.inf, 1.0))

    def explained(self, draws: Float[np.ndarray, "samples groups"]) -> Float[np.ndarray, " samples"]:
        """explained_variance when group g counts `draws[:, g]` times, each sample with its own global mean."""
        return 1 - draws @ self.error_square.cpu().numpy() / self._variance(draws)

    def _variance(self, draws: np.ndarray) -> np.ndarray:
        """Σ‖x − x̄‖² for every row of `draws`, (samples, groups): how often each group counts."""
        weights = torch.from_numpy(draws).to(self.count.device)
        n, total = weights @ self.count, weights @ self.row_sum
        return (weights @ self.square - total.square().sum(1) / n).cpu().numpy()


METRICS = ("fvu", "explained_variance", "fve_centered", "cosine", "l2_ratio", "l2_loss")
