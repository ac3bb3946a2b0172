"""Reference losses of a model on a corpus: clean, zero-ablated and mean-ablated; shared by all its SAEs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.activations.store import Shard, open_shards
from atlas.errors import DamagedFileError, EvaluationError
from atlas.evaluation.facts import counted_mean
from atlas.evaluation.units import MASKED_SHARE, MASKING_SEED, ContextBatch, Task, context_batches
from atlas.files import AGAIN
from atlas.hdf5 import new_hdf5, open_sealed
from atlas.hook_points import HookPoint
from atlas.models.forward import capture, final_hidden, run_from
from atlas.models.load import LoadedModel, PlantedModel, load_model
from atlas.progress import progress

FORMAT, FORMAT_VERSION = "sae-atlas-references", 2
ABLATIONS = ("zero", "mean")
_IDENTITY = ("weights_sha256", "tokenizer_sha256", "corpus", "corpus_fingerprint", "context_length")


def run_references(
    model: Path,
    shards: list[Path],
    hooks: list[str],
    loss_tokens: int,
    batch_contexts: int,
    device: torch.device,
    target: Path,
) -> None:
    """Write reference losses (see `compute_references`) of a prepared model on shards of a corpus."""
    compute_references(load_model(model, device), open_shards(shards), hooks, loss_tokens, batch_contexts, target)


def compute_references(
    loaded: LoadedModel,
    shards: Sequence[Shard],
    hooks: Sequence[str],
    loss_tokens: int,
    batch_contexts: int,
    target: Path,
) -> None:
    """Write clean outputs and reference losses of the first whole contexts within `loss_tokens` to an HDF5 file.

    Both ablations act on counted positions only, as the SAE later does: special tokens keep their activation. The
    mean is that of the corpus' counted rows. Raises EvaluationError when the shards belong to another model, or when
    `loss_tokens` is less than a context.
    """
    require_model(shards, loaded)
    length = shards[0].context_length
    n_contexts = min(loss_tokens // length, sum(shard.n_rows for shard in shards) // length)
    if n_contexts == 0:
        raise EvaluationError(
            f"evaluation.loss_tokens is {loss_tokens}: must be at least one context, {length} tokens, of "
            f"{shards[0].identity['corpus']}"
        )
    means = {hook: counted_mean(shards, hook).float().to(loaded.device) for hook in hooks}
    with new_hdf5(target) as file:
        writer, ablated = _Writer(file, n_contexts), Ablated(loaded, means)
        with progress(n_contexts * length, f"references {shards[0].identity['corpus']}", "token") as shown:
            for batch in context_batches(shards, n_contexts, batch_contexts):
                writer.write(batch.first, _batch_references(loaded, batch, ablated))
                shown.update(batch.n_contexts * length)
        file.attrs.update({key: shards[0].identity[key] for key in _IDENTITY})
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "objective": loaded.objective})
        if loaded.objective == "masked_lm":
            file.attrs.update({"masked_share": MASKED_SHARE, "masking_seed": MASKING_SEED})


def require_model(shards: Sequence[Shard], loaded: LoadedModel | PlantedModel) -> None:
    """Raise EvaluationError when a shard was harvested from another model or tokenizer than the loaded one."""
    for shard in shards:
        for key in ("weights_sha256", "tokenizer_sha256"):
            found, expected = shard.identity[key], loaded.identity[key]
            if found != expected:
                raise EvaluationError(
                    f"shard {shard.identity['shard']} of corpus {shard.identity['corpus']!r}: {key} is {found!r}, but "
                    f"the loaded model {loaded.identity['name']!r} has {expected!r}: these activations are another "
                    "model's; delete them and run again"
                )


def _batch_references(loaded: LoadedModel, batch: ContextBatch, ablated: "Ablated") -> dict[str, np.ndarray]:
    task = Task.of(loaded, batch)
    hidden = final_hidden(loaded, task.inputs)
    clean = task.summarise(loaded, hidden)
    result = {
        "mask": task.mask.cpu().numpy(),
        "document": task.document.astype(np.int32),
        "loss_clean": task.spread(task.losses(loaded, hidden, clean)[0]),
        **{f"clean/{name}": _bits(value) for name, value in clean.items()},
    }
    rows = {hook: batch.rows(hook) for hook in ablated.hooks}
    if loaded.objective == "masked_lm":  # the store holds activations of the text without holes
        rows = capture(loaded, task.inputs, ablated.hooks)
        result |= {f"hooks/{hook}/rows": _bits(value) for hook, value in rows.items()}
    for hook in ablated.hooks:
        for ablation in ABLATIONS:
            loss, _ = task.losses(loaded, ablated.hidden(task, hook, ablation, rows[hook]), clean)
            result[f"hooks/{hook}/loss_{ablation}"] = task.spread(loss)
    return result


class Ablated:
    """Final states of contexts whose counted positions hold one vector.

    Where every position is counted, nothing of the text is left after a residual hook: such contexts are all the same,
    and are run once.
    """

    def __init__(self, loaded: LoadedModel, means: Mapping[str, Float[Tensor, " d_model"]]):
        self.hooks = list(means)
        self._loaded = loaded
        self._values = {(hook, "mean"): mean for hook, mean in means.items()}
        self._values |= {(hook, "zero"): torch.zeros_like(mean) for hook, mean in means.items()}
        self._blank: dict[tuple[str, str], Float[Tensor, "1 position d_model"]] = {}

    def hidden(
        self, task: Task, hook: str, ablation: str, rows: Float[Tensor, "contexts position d_model"]
    ) -> Float[Tensor, "contexts position d_model"]:
        """With the ablation's vector in place of the counted `rows`."""
        value = self._values[hook, ablation]
        edited = put(rows.to(task.inputs.device).float(), task.counted, value)
        blank = task.counted.all(dim=1) & HookPoint.parse(hook).is_residual
        if not bool(blank.any()):
            return run_from(self._loaded, task.inputs, hook, edited)
        if (hook, ablation) not in self._blank:
            one = blank.nonzero()[0]
            self._blank[hook, ablation] = run_from(self._loaded, task.inputs[one], hook, edited[one])
        result = self._blank[hook, ablation].repeat(len(edited), 1, 1)
        if not bool(blank.all()):
            result[~blank] = run_from(self._loaded, task.inputs[~blank], hook, edited[~blank])
        return result


def put(
    rows: Float[Tensor, "contexts position d_model"],
    counted: Bool[Tensor, "contexts position"],
    value: Float[Tensor, "*rows d_model"],
) -> Float[Tensor, "contexts position d_model"]:
    """A copy of `rows` with `value` at the counted positions: one vector for all, or one for each in order."""
    edited = rows.clone()
    edited[counted] = value
    return edited


def _bits(values: Tensor) -> np.ndarray:
    """bfloat16 as its bits in uint16 (NumPy has no such type), anything else as float32."""
    values = values.cpu()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.float().numpy()


class _Writer:
    """Appends batches to datasets, each created with the first one, when its shape is known.

    Those under clean/ have a row per counted unit, all others one per context.
    """

    def __init__(self, file: h5py.File, n_contexts: int):
        self._file, self._n_contexts = file, n_contexts

    def write(self, first: int, values: dict[str, np.ndarray]) -> None:
        for name, value in values.items():
            if name.startswith("clean/"):
                self._append(name, value)
                continue
            if name not in self._file:
                self._file.create_dataset(name, (self._n_contexts, *value.shape[1:]), value.dtype, fletcher32=True)
            self._file[name][first : first + len(value)] = value

    def _append(self, name: str, value: np.ndarray) -> None:
        if name not in self._file:
            self._file.create_dataset(
                name, (0, *value.shape[1:]), value.dtype, maxshape=(None, *value.shape[1:]), fletcher32=True
            )
        dataset = self._file[name]
        dataset.resize(len(dataset) + len(value), axis=0)
        dataset[len(dataset) - len(value) :] = value


@dataclass(frozen=True)
class References:
    """A references file; losses, mask and documents are (contexts, units), all else is read when asked for."""

    path: Path
    n_contexts: int
    mask: np.ndarray
    document: np.ndarray
    loss_clean: np.ndarray
    loss_zero: np.ndarray
    loss_mean: np.ndarray

    @classmethod
    def open(cls, path: Path, hook: str, expected: dict[str, Any]) -> "References":
        """Read the references of one hook; `expected` are attributes that must match (a shard's identity).

        Raises EvaluationError that names the file when it is damaged, lacks the hook, or belongs to something else.
        """
        path = Path(path)
        with _opened(path) as file:
            attributes = dict(file.attrs)
            found = (attributes.get("format"), attributes.get("format_version"))
            if found != (FORMAT, FORMAT_VERSION):
                raise EvaluationError(f"{path}: format is {found}, expected {(FORMAT, FORMAT_VERSION)}; {AGAIN}")
            if hook not in file["hooks"]:
                raise EvaluationError(f"{path}: has no hook {hook!r}, only {', '.join(file['hooks'])}; {AGAIN}")
            names = ("mask", "document", "loss_clean", f"hooks/{hook}/loss_zero", f"hooks/{hook}/loss_mean")
            values = [file[name][:] for name in names]
        for key in _IDENTITY:
            if attributes[key] != expected[key]:
                raise EvaluationError(
                    f"{path}: {key} is {attributes[key]!r}, but the activations have {expected[key]!r}; {AGAIN}"
                )
        return cls(path, len(values[0]), *values)

    def clean(self, first: int, n_contexts: int, device: torch.device) -> dict[str, Float[Tensor, "units ..."]]:
        """Return what the clean output of some contexts is compared by: `Task.summarise` of it."""
        units = np.concatenate([[0], np.cumsum(self.mask.sum(axis=1))])
        start, stop = units[first], units[first + n_contexts]
        with _opened(self.path) as file:
            read = {name: dataset[start:stop] for name, dataset in file["clean"].items()}
        return {name: _values(values).to(device) for name, values in read.items()}

    def rows(self, hook: str, batch: ContextBatch) -> Float[Tensor, "contexts position d_model"]:
        """Clean activations at `hook`, float32: the store's, but of the masked text for a masked language model."""
        with _opened(self.path) as file:
            masked = file.attrs["objective"] == "masked_lm"
            stored = file[f"hooks/{hook}/rows"][batch.first : batch.first + batch.n_contexts] if masked else None
        return batch.rows(hook) if stored is None else _values(stored).float()


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, verified as a whole; what is wrong with it becomes an error with a remedy."""
    try:
        with open_sealed(path) as file:
            yield file
    except DamagedFileError as error:
        raise EvaluationError(str(error)) from error


def _values(stored: np.ndarray) -> Tensor:
    """The reverse of `_bits`."""
    values = torch.from_numpy(stored)
    return values.view(torch.bfloat16) if values.dtype == torch.uint16 else values
