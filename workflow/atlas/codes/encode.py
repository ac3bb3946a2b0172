"""Encode a corpus: one pass over its stored rows gives the codes of an SAE and of a random dictionary beside it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from atlas.activations.store import Shard, open_shards, shards_by_corpus
from atlas.codes.layout import BLOCK_ROWS, IDENTITY
from atlas.codes.writer import CodeRows, CodesWriter
from atlas.errors import EvaluationError, TrainingError
from atlas.evaluation.baseline import random_sae, random_transcoder
from atlas.evaluation.chunks import chunk_rows
from atlas.evaluation.facts import TrainingFacts
from atlas.files import atomic_path, sha256_file, sha256_strings
from atlas.folder import Folder
from atlas.hook_points import SaeHooks
from atlas.progress import progress
from atlas.training.sae import CONFIG_FILE, WEIGHTS_FILE, Sae, load_sae, read_atlas_metadata


@dataclass(frozen=True)
class EncodingInputs:
    """Files of one encoding: SAE folder, training shards of its mix, eval shards of one corpus."""

    sae: Folder
    train_shards: list[Path]
    shards: list[Path]


def run_encoding(
    inputs: EncodingInputs, *, hook: str, seed: int, device: torch.device, target: Path, random_target: Path
) -> None:
    """Write the codes of an SAE at `target`, and of the random dictionary that `seed` draws at `random_target`.

    `hook` is one hook, or a transcoder's two, as in the SAE's path. Raises EvaluationError when SAE and activations
    do not belong together, StoreError for damaged shards or a full disk.
    """
    hooks = SaeHooks.parse(hook)
    sae = _load(inputs.sae, hooks)
    training = TrainingFacts.of(shards_by_corpus(inputs.train_shards, {}), hook)
    shards = open_shards(inputs.shards)
    _require_consistent(inputs.sae, sae, hooks, shards)
    dictionaries = {"sae": (target, sae), "random": (random_target, random_dictionary(sae, training, seed))}
    encode_corpus(dictionaries, hooks, shards, training, identity_of(inputs.sae, hook, seed), device)


def sae_sha256(folder: Path) -> str:
    """Hash of an SAE: of its weights and of its configuration, which holds k and the threshold."""
    return sha256_strings(sha256_file(Path(folder) / name) for name in (WEIGHTS_FILE, CONFIG_FILE))


def identity_of(folder: Path, hook: str, seed: int) -> dict[str, Any]:
    """Return what codes say about the SAE that they are of."""
    return {"sae_sha256": sae_sha256(folder), "hook": hook, "seed": seed}


def random_dictionary(sae: Sae, training: TrainingFacts, seed: int) -> Sae:
    """The random dictionary that stands beside an SAE or transcoder: the one that its evaluation draws."""
    if not sae.is_transcoder:
        return random_sae(sae, training.source.mean, seed)
    gain = training.target.median_norm / training.source.median_norm
    return random_transcoder(sae, training.source.mean, training.target.mean, gain, seed)


def open_dictionaries(folder: Path, train_shards: Sequence[Path], hook: str, seed: int) -> dict[str, Sae]:
    """An SAE and the random dictionary beside it, by the names that codes have for them (``sae``, ``random``).

    Raises EvaluationError when the SAE's files are missing or damaged.
    """
    try:
        sae = load_sae(folder)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    training = TrainingFacts.of(shards_by_corpus(list(train_shards), {}), hook)
    return {"sae": sae, "random": random_dictionary(sae, training, seed)}


@torch.inference_mode()
def encode_corpus(
    dictionaries: Mapping[str, tuple[Path, Sae]],
    hooks: SaeHooks,
    shards: Sequence[Shard],
    training: TrainingFacts,
    identity: Mapping[str, Any],
    device: torch.device,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Write one codes file per dictionary (name → path and SAE) from all rows of `shards`, which are read once."""
    rows = _row_columns(shards, hooks, training)
    with ExitStack() as stack:
        writers = {}
        for name, (target, sae) in dictionaries.items():
            temporary = stack.enter_context(atomic_path(target))
            writers[name] = CodesWriter(temporary, sae.n_latents, rows, block_rows)
            stack.callback(writers[name].close)
        saes = {name: sae.to(device) for name, (_, sae) in dictionaries.items()}
        with progress(len(rows.tokens), f"encode {shards[0].identity['corpus']}", "row") as shown:
            for first in range(0, len(rows.tokens), block_rows):
                entries = {name: _Entries() for name in saes}
                last = min(first + block_rows, len(rows.tokens))
                for start, values in _chunks(shards, hooks.source, first, last, _chunk_rows(saes)):
                    for name, sae in saes.items():
                        entries[name].add(*_entries(sae, values.to(device), start))
                    shown.update(len(values))
                for name, writer in writers.items():
                    row, latent, value = entries[name].columns
                    writer.write(latent, row, value)
        for name, writer in writers.items():
            writer.finish(_attributes(name, saes[name], shards[0], training, identity))


class _Entries:
    """Row, latent and value of all that fired in a block, in arrays that double when they are full.

    Arrays for each chunk would lie between freed codes of chunks, which the C library then cannot use again.
    """

    def __init__(self) -> None:
        self._size = 0
        self._columns = [np.empty(2**20, kind) for kind in (np.int64, np.int64, np.float32)]

    def add(self, *columns: np.ndarray) -> None:
        """Append what fired in one chunk."""
        stop = self._size + len(columns[0])
        if stop > len(self._columns[0]):
            grown = max(stop, 2 * len(self._columns[0]))
            self._columns = [
                np.concatenate([column[: self._size], np.empty(grown - self._size, column.dtype)])
                for column in self._columns
            ]
        for column, values in zip(self._columns, columns, strict=True):
            column[self._size : stop] = values
        self._size = stop

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, latent and value."""
        row, latent, value = (column[: self._size] for column in self._columns)
        return row, latent, value


def _entries(sae: Sae, values: torch.Tensor, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, latent and value of everything that fires, row by row."""
    codes = sae.encode(values)
    row, latent = codes.nonzero(as_tuple=True)
    return (row + start).cpu().numpy(), latent.cpu().numpy(), codes[row, latent].cpu().numpy()


def _chunk_rows(saes: Mapping[str, Sae]) -> int:
    return min(chunk_rows(sae) for sae in saes.values())


def _chunks(shards: Sequence[Shard], hook: str, first: int, last: int, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Rows `first` to `last` of all shards together, at most `size` at a time, each with the number of its first."""
    begin = 0
    for shard in shards:
        start, stop = max(first - begin, 0), min(last - begin, shard.n_rows)
        for row in range(start, stop, size):
            yield begin + row, shard.read_rows(hook, row, min(row + size, stop))
        begin += shard.n_rows


def _row_columns(shards: Sequence[Shard], hooks: SaeHooks, training: TrainingFacts) -> CodeRows:
    limits = {hooks.source: training.source.limit, hooks.target: training.target.limit}
    massive = [np.any([shard.norms(hook) > limit for hook, limit in limits.items()], axis=0) for shard in shards]
    columns = {name: np.concatenate([getattr(s, name) for s in shards]) for name in ("tokens", "document", "counted")}
    return CodeRows(massive=np.concatenate(massive), **columns)


def _attributes(
    name: str, sae: Sae, shard: Shard, training: TrainingFacts, identity: Mapping[str, Any]
) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "h5py": h5py.__version__, "numpy": np.__version__}
    limits = list(dict.fromkeys([training.source.limit, training.target.limit]))
    known = {
        **{key: shard.identity[key] for key in IDENTITY if key in shard.identity},
        **identity,
        "dictionary": name,
        "architecture": sae.architecture,
        "massive_norms": json.dumps(limits),
        "versions": json.dumps(versions, sort_keys=True),
    }
    return {key: known[key] for key in IDENTITY}


def _load(folder: Path, hooks: SaeHooks) -> Sae:
    try:
        sae = load_sae(folder)
    except TrainingError as error:
        raise EvaluationError(str(error)) from error
    ours = read_atlas_metadata(folder)
    for key, expected in (("hook_name", hooks.source), ("target_hook_name", hooks.target_hook)):
        if ours.get(key) != expected:
            raise EvaluationError(f"{folder}: {key} is {ours.get(key)!r}, expected {expected!r}: another hook's SAE")
    return sae


def _require_consistent(folder: Path, sae: Sae, hooks: SaeHooks, shards: Sequence[Shard]) -> None:
    ours = read_atlas_metadata(folder)
    first = shards[0]
    if first.identity["model"] != ours["model_name"]:
        raise EvaluationError(
            f"{first.path}: model is {first.identity['model']!r}, but {folder} was trained on {ours['model_name']!r}"
        )
    if first.identity["split"] != "eval":
        raise EvaluationError(f"{first.path}: split is {first.identity['split']!r}, expected 'eval': rows are shuffled")
    width = first.read_rows(hooks.source, 0, 1).shape[1]
    if width != sae.d_model:
        raise EvaluationError(
            f"{first.path}: rows of {hooks.source} have width {width}, but {folder} has d_model {sae.d_model}"
        )
