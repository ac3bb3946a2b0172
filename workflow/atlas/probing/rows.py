"""Files of labelled activations: one per model, made once, read for every SAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from atlas.errors import DamagedFileError, StoreError
from atlas.tensors import facts_of, open_tensors, write_tensors

_REMEDY = "delete this file and run again"


@dataclass(frozen=True)
class LabelledRows:
    """One hook's rows of one set of texts, and a label each (classes of a data set: 0 and 1; letters: 0 to 25)."""

    rows: Float[Tensor, "n d_model"]
    labels: Tensor


def write_rows(
    path: Path, groups: Mapping[str, Mapping[str, Tensor]], labels: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write rows (group → hook → (n, d_model)) with each group's labels; `facts` are kept as JSON."""
    tensors = {f"{group}/{hook}": rows.contiguous() for group, hooks in groups.items() for hook, rows in hooks.items()}
    tensors |= {f"{group}/labels": values.contiguous() for group, values in labels.items()}
    write_tensors(path, tensors, facts)


def read_facts(path: Path) -> dict[str, Any]:
    """Return what `write_rows` was told; raises StoreError for another or a damaged file."""
    try:
        with open_tensors(path, _REMEDY) as file:
            return facts_of(file, path, _REMEDY)
    except DamagedFileError as error:
        raise StoreError(str(error)) from error


def read_rows(path: Path, group: str, hook: str) -> LabelledRows:
    """One group at one hook, float32; raises StoreError when it is not there or not finite."""
    try:
        with open_tensors(path, _REMEDY) as file:
            rows, labels = file.get_tensor(f"{group}/{hook}").float(), file.get_tensor(f"{group}/labels")
    except (DamagedFileError, OSError, SafetensorError) as error:
        raise StoreError(f"{path}: no rows of {group!r} at {hook} ({error}); {_REMEDY}") from error
    if not bool(rows.isfinite().all()):
        raise StoreError(f"{path}: rows of {group!r} at {hook} are not finite; audit the model")
    return LabelledRows(rows, labels)
