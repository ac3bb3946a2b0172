"""The two protocols over one stream of rows. docs/metrics.md, section 5.

`AtlasSums` measures the inference path on counted rows; `GuideSums` repeats what the published numbers were
evidently computed with. Both are fed the same pre-activations, so that the product with W_enc is made once.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.config.study import Evaluation
from atlas.evaluation.document_sums import ALL, REGULAR
from atlas.evaluation.reconstruction import METRICS, ReconstructionSums
from atlas.evaluation.redundancy import Geometry, PairFirings, random_pairs
from atlas.evaluation.sparsity import FiringSums, sparsity_metrics
from atlas.statistics.clusters import TOO_FEW, cluster_interval
from atlas.training.sae import Sae

# The guide's dead latents: fewer firings than this, or a mean strength below that, on the sample.
GUIDE_DEAD_FIRINGS = 5
GUIDE_DEAD_STRENGTH = 0.1
# Pairs of latents behind the null of joint firing: enough for a mean with a few per cent of error.
RANDOM_PAIRS = 2000
# Columns of the encoder that are held in float64 at a time.
_SLICE = 8192


class AtlasSums:
    """Reconstruction, sparsity and joint firing of the inference path over counted rows."""

    def __init__(self, sae: Sae, center: Float[Tensor, " d_model"], n_groups: int, geometry: Geometry | None):
        self._sae, device = sae, sae.W_enc.device
        self._regular = ReconstructionSums.start(center, n_groups)
        self._massive = ReconstructionSums.start(center, n_groups)
        self.firings = FiringSums.start(sae.n_latents, device)
        self._fired = torch.zeros(n_groups, dtype=torch.float64, device=device)
        none = torch.empty(2, 0, dtype=torch.int64, device=device)
        pairs = none if geometry is None else geometry.pairs
        self._pairs = PairFirings(pairs)
        self._random = PairFirings(random_pairs(sae.n_latents, RANDOM_PAIRS if pairs.numel() else 0, device))

    def update(
        self,
        rows: Float[Tensor, "rows d_model"],
        pre: Float[Tensor, "rows n_latents"],
        massive: Bool[Tensor, " rows"],
        groups: Int[Tensor, " rows"],
        encoded: Float[Tensor, "rows d_source"] | None = None,
    ) -> None:
        """Add counted rows with their pre-activations; `rows` are what is reconstructed, a transcoder's targets.

        `encoded` are the rows that were read, for an SAE whose `needs_rows` says so.
        """
        latents = self._sae.activate(pre)
        reconstruction = self._sae.decode(latents, encoded)
        for sums, mine in ((self._regular, ~massive), (self._massive, massive)):
            if bool(mine.any()):
                sums.update(rows[mine], reconstruction[mine], groups[mine])
        fired = latents > 0
        self._fired.index_add_(0, groups, self.firings.update(fired, massive).double())
        self._pairs.update(fired)
        self._random.update(fired)

    def metrics(self, settings: Evaluation) -> tuple[dict[str, Any], dict[str, str]]:
        """Sections 2 (without losses) and 3, and the joint firing of section 4; with reasons for what is None."""
        result, reasons = self._reconstruction()
        target = self._sae.k if self._sae.architecture != "relu" else None
        result |= sparsity_metrics(self.firings, target, settings.dead_min_tokens)
        if target is None:
            reason = f"architecture {self._sae.architecture} has no target L0"
            reasons |= {"atlas_l0_target": reason, "atlas_sparsity_constraint_broken": reason}
        result["l0_interval"] = self._l0_interval()
        if result["l0_interval"] is None:
            reasons["atlas_l0_interval"] = TOO_FEW
        rows = self._regular + self._massive
        result["l0_clusters"] = rows.n_clusters
        result["firing_jaccard"], result["firing_jaccard_null"] = self._pairs.jaccard(), self._random.jaccard()
        for name in ("firing_jaccard", "firing_jaccard_null"):
            if result[name] is None:
                reasons[f"atlas_{name}"] = "no two latents with a decoder cosine above 0.5 of which either fired"
        return result, reasons

    def by_family(self) -> dict[str, ReconstructionSums]:
        """Give the sums of reconstruction over all rows, and over those that are no massive activations."""
        return {ALL: self._regular + self._massive, REGULAR: self._regular}

    def _l0_interval(self) -> list[float] | None:
        fired, rows = self._fired.cpu().numpy(), (self._regular.count + self._massive.count).cpu().numpy()
        seen = rows > 0
        return cluster_interval(
            lambda draws: draws @ fired[seen] / (draws @ rows[seen]), int(seen.sum()), (0.0, math.inf)
        )

    def _reconstruction(self) -> tuple[dict[str, Any], dict[str, str]]:
        result: dict[str, Any] = {}
        reasons = {}
        for suffix, sums in (("", self._regular + self._massive), ("_regular", self._regular)):
            result |= {f"{name}{suffix}": value for name, value in sums.metrics().items()}
            result[f"explained_variance{suffix}_interval"] = sums.interval()
            result[f"explained_variance{suffix}_clusters"] = sums.n_clusters
            for name in METRICS:
                if result[f"{name}{suffix}"] is None:
                    reasons[f"atlas_{name}{suffix}"] = "there are no such rows, or they are all equal"
            if result[f"explained_variance{suffix}_interval"] is None:
                reasons[f"atlas_explained_variance{suffix}_interval"] = f"{TOO_FEW}, or all rows are equal"
        return result, reasons


class GuideSums:
    """Sums of the guide's protocol, inferred from the published numbers. All rows count, special tokens too.

    The encoder does not subtract b_dec, also where the SAE was trained so (a transcoder's never does); reconstruction
    passes through TopK, but L0 and deadness are taken from ReLU pre-activations before it.
    """

    def __init__(self, sae: Sae, center: Float[Tensor, " d_model"]):
        self._sae = sae
        # (x − b_dec) W + b + b_dec W = x W + b: the pre-activations without the subtraction, for the price of a sum.
        self._offset = (
            torch.cat([_read(sae.b_dec, part) for part in sae.W_enc.split(_SLICE, 1)]) if sae.centres else 0.0
        )
        self._sums = ReconstructionSums.start(center)
        self._fired = torch.zeros(sae.n_latents, dtype=torch.int64, device=sae.W_enc.device)
        self._strength = torch.zeros(sae.n_latents, dtype=torch.float64, device=sae.W_enc.device)
        self._n_rows = 0

    def update(
        self,
        rows: Float[Tensor, "rows d_model"],
        pre: Float[Tensor, "rows n_latents"],
        encoded: Float[Tensor, "rows d_source"] | None = None,
    ) -> None:
        """Add rows (a transcoder's targets) with the pre-activations of the inference path (b_dec subtracted)."""
        positive = torch.relu(pre + self._offset)
        self._sums.update(rows, self._sae.decode(self._sae.activate(positive), encoded))
        self._fired += (positive > 0).float().sum(0).long()  # exact: rows at a time are far below 2^24
        self._strength += positive.sum(0, dtype=torch.float64)
        self._n_rows += len(rows)

    def metrics(self, absorption: float) -> tuple[dict[str, float | None], dict[str, str]]:
        """loss_recovered_pct, l0, dead_pct and absorption, with reasons for what is None."""
        fvu = self._sums.metrics()["fvu"]
        dead = (self._fired < GUIDE_DEAD_FIRINGS) | (self._strength / self._n_rows < GUIDE_DEAD_STRENGTH)
        result = {
            "loss_recovered_pct": None if fvu is None else min(100.0, max(0.0, 100 * (1 - fvu))),
            "l0": self._fired.sum().item() / self._n_rows,
            "dead_pct": 100 * dead.double().mean().item(),
            "absorption": absorption,
        }
        reasons = {"guide_loss_recovered_pct": "the rows are all equal"} if fvu is None else {}
        return result, reasons


def _read(b_dec: Float[Tensor, " d_model"], W_enc: Float[Tensor, "d_model n_latents"]) -> Float[Tensor, " n_latents"]:
    return (b_dec.double() @ W_enc.double()).float()
