"""Keep sums of each document, so that two SAEs can be compared on the same text. docs/twins.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from atlas.evaluation.losses import LossTable
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.sae_files import require_sae
from atlas.statistics.clusters import Groups
from atlas.tensors import facts_of, open_tensors, write_tensors

# Families of sums: over all counted rows, over those that are no massive activations, over units of the loss.
ALL, REGULAR, LOSS = "all", "regular", "loss"
_LOSSES = ("clean", "zero", "mean", "sae", "kl")


@dataclass(frozen=True)
class DocumentSums:
    """Float64 sums over the rows (or units of the loss) of each document of one corpus, ``<family>/<name>`` -> array.

    A group is a document, or several where a corpus has more than MAX_GROUPS. Families `all` and
    `regular` have count, square, error_square, (groups,), and row_products, (groups, groups): scalar products of the
    groups' row sums, from which the variance of any selection of groups follows. Family `loss` has count and the losses
    clean, zero, mean, sae and, where the model predicts a distribution, kl; `_regular`: massive activations left as
    they are.
    """

    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rows: Mapping[str, ReconstructionSums], losses: LossTable | None) -> "DocumentSums":
        """Take the sums of a pass over rows by family, and the losses of the spliced model, where there is one."""
        values = {f"{family}/{name}": each for family in rows for name, each in _row_sums(rows[family]).items()}
        if losses is not None:
            values |= {f"{LOSS}/{name}": each for name, each in _loss_sums(losses).items()}
        return cls(values)


def _row_sums(sums: ReconstructionSums) -> dict[str, np.ndarray]:
    return {
        "count": sums.count.cpu().numpy(),
        "square": sums.square.cpu().numpy(),
        "error_square": sums.error_square.cpu().numpy(),
        "row_products": (sums.row_sum @ sums.row_sum.T).cpu().numpy(),
    }


def _loss_sums(table: LossTable) -> dict[str, np.ndarray]:
    groups = Groups.of(table.document)
    index = groups.index(table.document)
    columns = {name: getattr(table, name) for name in _LOSSES}
    if table.regular is not None:
        columns |= {f"{name}_regular": getattr(table.regular, name) for name in ("mean", "sae", "kl")}
    sums = {
        name: np.bincount(index, column.astype(np.float64), groups.count)
        for name, column in columns.items()
        if column is not None
    }
    return sums | {"count": np.bincount(index, minlength=groups.count).astype(np.float64)}


def write_document_sums(
    path: Path, sae_id: str, sums: Mapping[str, DocumentSums], fingerprints: Mapping[str, str]
) -> None:
    """Write the sums of one SAE by corpus to one sealed file; `fingerprints` say which text each corpus has."""
    tensors = {
        f"{corpus}/{name}": torch.tensor(value) for corpus, each in sums.items() for name, value in each.values.items()
    }
    write_tensors(path, tensors, {"sae_id": sae_id, "fingerprints": dict(fingerprints)})


def read_document_sums(path: Path, sae_id: str) -> tuple[dict[str, DocumentSums], dict[str, str]]:
    """Read sums by corpus, and fingerprints.

    Raises EvaluationError for another SAE, and DamagedFileError for a file of which a bit has changed.
    """
    with open_tensors(path) as file:
        facts = facts_of(file, path)
        require_sae(path, facts["sae_id"], sae_id)
        found: dict[str, dict[str, np.ndarray]] = {corpus: {} for corpus in facts["fingerprints"]}
        for key in file.keys():  # noqa: SIM118 (not a dict)
            corpus, name = key.split("/", 1)
            found[corpus][name] = file.get_tensor(key).numpy()
    return {corpus: DocumentSums(values) for corpus, values in found.items()}, facts["fingerprints"]
