"""Measure the reconstruction of the tokens that financial text turns on, and its cost to the model."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Integer as Int

from atlas.evaluation.chunks import chunk_rows, reconstruct
from atlas.evaluation.losses import LossTable
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.finance.estimates import Estimate, ratio_of
from atlas.finance.kinds import GROUPS, KINDS, in_group
from atlas.finance.text import KindedRows
from atlas.training.sae import Sae


@torch.inference_mode()
def explained_by_group(sae: Sae, text: KindedRows, center: torch.Tensor, samples: int) -> dict[str, Estimate]:
    """Explained variance over the usable rows of each group of kinds, each about the mean of its own rows.

    `center` (d_model,) is any point near the rows' mean.
    """
    device, group = sae.W_dec.device, text.groups.index(text.document)
    sums = {kind: ReconstructionSums.start(center.to(device), text.groups.count) for kind in KINDS}
    rows = np.flatnonzero(text.usable)
    for chunk in np.array_split(rows, -(-len(rows) // chunk_rows(sae))):
        values = text.read(chunk).to(device)
        reconstruction = reconstruct(sae, values)
        for number, kind in enumerate(KINDS):
            own = torch.from_numpy(np.flatnonzero(text.kinds[chunk] == number)).to(device)
            if len(own):
                owners = torch.from_numpy(group[chunk]).to(device)[own]
                sums[kind].update(values[own], reconstruction[own], owners)
    result = {}
    for name, kinds in GROUPS.items():
        together = sums[kinds[0]]
        for kind in kinds[1:]:
            together = together + sums[kind]
        result[name] = Estimate.of(together.explained, text.groups.count, samples, (-np.inf, 1.0))
    return result


def loss_by_group(
    losses: LossTable, kinds: Int[np.ndarray, " units"], min_gap: float, samples: int
) -> tuple[dict[str, dict[str, Estimate | None]], dict[str, int]]:
    """`delta_loss` and `loss_recovered_zero` of the predicted tokens of each group of kinds, and their number.

    A recovered share is None where zero ablation raises the group's loss by less than `min_gap`.
    """
    documents = np.unique(losses.document)
    index, n_groups = np.searchsorted(documents, losses.document), len(documents)
    result: dict[str, dict[str, Estimate | None]] = {}
    units = {}
    for name in GROUPS:
        own = in_group(kinds, name)
        units[name] = int(own.sum())
        columns = {key: getattr(losses, key).astype(np.float64)[own] for key in ("clean", "sae", "zero")}
        gap = columns["zero"] - columns["clean"]

        def ratio(above: np.ndarray, below: np.ndarray, own: np.ndarray = own) -> Estimate | None:
            return ratio_of(above, below, index[own], n_groups, samples) if own.any() else None

        enough = own.any() and gap.mean() >= min_gap
        result[name] = {
            "delta_loss": ratio(columns["sae"] - columns["clean"], np.ones(own.sum())),
            "loss_recovered_zero": ratio(columns["zero"] - columns["sae"], gap) if enough else None,
        }
    return result, units


def as_columns(estimates: Mapping[str, Estimate | None], prefix: str) -> dict[str, Estimate | None]:
    """The same with `prefix` before each name."""
    return {f"{prefix}_{name}": estimate for name, estimate in estimates.items()}
