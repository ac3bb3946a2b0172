"""A trained SAE: its inference path, and its files in the SAELens layout.

The files follow SAELens 6 (`sae_weights.safetensors` and `cfg.json`, names and shapes as its loader expects), so
that tools of that family load them directly. An SAE with one threshold for all latents (batch_topk,
matryoshka_batch_topk) is written as a jumprelu SAE, which computes the same inference path; the `atlas` block of the
metadata keeps our own name for it.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlas.errors import TrainingError
from atlas.files import AGAIN, atomic_path, json_text, read_json, sha256_file, write_sealed_text
from atlas.sealed import KEY, UNSEALED
from atlas.training.architectures import INFERENCE, Architecture
from atlas.training.row_scale import ROW_SCALES, RowScale
from atlas.training.transformer_lens import transformer_lens_name

log = logging.getLogger(__name__)

WEIGHTS_FILE, CONFIG_FILE = "sae_weights.safetensors", "cfg.json"
# First version whose configuration has this form; a loader that sees an older or no version rewrites the file.
SAELENS_VERSION = "6.0.0"
_SHARED = ("W_enc", "b_enc", "W_dec", "b_dec")
_SKIP = "W_skip"  # (d_target, d_model) in the file
# Transcoders that only others train, and those with W_skip.
_TRANSCODERS = {"relu": "transcoder", "jumprelu": "jumprelu_transcoder"}
_SKIPPING = {"transcoder": "skip_transcoder", "jumprelu_transcoder": "jumprelu_skip_transcoder"}


@dataclass(frozen=True)
class Sae:
    """A sparse autoencoder for rows as they are in the store; any normalisation is folded into the weights.

    `k` is the target L0 of architectures that have one; `threshold` the one that batch_topk and matryoshka_batch_topk
    have for all latents, None until training has set it. `latent_parameters` are what the architecture has besides, a
    number per latent: `thresholds` of jumprelu, `r_mag` and `b_mag` of gated, whose `b_enc` is the bias of the gate.

    A transcoder reads rows of one hook and reconstructs the same tokens' rows of another, which may be of another
    width: W_dec is (n_latents, d_target), b_dec (d_target,).

    Only SAEs that others trained have the rest: `subtracts_b_dec` is whether the encoder subtracts b_dec (None: an SAE
    does, a transcoder does not), `row_scale` a normalisation of each row by itself, undone in the reconstruction
    (`ROW_SCALES`), and `W_skip` what a transcoder passes on of its rows besides.
    """

    architecture: str
    W_enc: Float[Tensor, "d_model n_latents"]
    b_enc: Float[Tensor, " n_latents"]
    W_dec: Float[Tensor, "n_latents d_target"]
    b_dec: Float[Tensor, " d_target"]
    k: int | None = None
    threshold: float | None = None
    latent_parameters: Mapping[str, Float[Tensor, " n_latents"]] = field(default_factory=dict)
    is_transcoder: bool = False
    subtracts_b_dec: bool | None = None
    row_scale: str | None = None
    W_skip: Float[Tensor, "d_model d_target"] | None = None

    @property
    def centres(self) -> bool:
        """Return whether the encoder subtracts b_dec from the rows."""
        return not self.is_transcoder if self.subtracts_b_dec is None else self.subtracts_b_dec

    @property
    def needs_rows(self) -> bool:
        """Return whether a reconstruction depends on the rows besides their latents: `decode` then wants them."""
        return self.row_scale is not None or self.W_skip is not None

    @property
    def has_our_form(self) -> bool:
        """Return whether it computes as SAEs trained here do: b_dec as `is_transcoder` says, and nothing besides."""
        return not self.needs_rows and self.centres != self.is_transcoder

    @property
    def d_model(self) -> int:
        """Width of the rows that are read."""
        return self.W_enc.shape[0]

    @property
    def d_target(self) -> int:
        """Width of what is reconstructed; `d_model` for an SAE."""
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return self.W_enc.shape[1]

    def to(self, device: torch.device | str) -> "Sae":
        """The same SAE on another device."""
        moved = {name: getattr(self, name).to(device) for name in _SHARED}
        own = {name: tensor.to(device) for name, tensor in self.latent_parameters.items()}
        skip = None if self.W_skip is None else self.W_skip.to(device)
        return dataclasses.replace(self, **moved, latent_parameters=own, W_skip=skip)

    def pre_activations(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows n_latents"]:
        """``(rows - b_dec) @ W_enc + b_enc`` in float32, before any selection.

        A transcoder subtracts nothing: its b_dec is a point of the target.
        """
        rows = rows.float() if self.row_scale is None else self._row_scale().scaled(rows.float())
        centred = rows - self.b_dec if self.centres else rows
        return centred @ self.W_enc + self.b_enc

    def encode(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows n_latents"]:
        """Latents of the inference path, dense, float32, none negative."""
        return self.activate(self.pre_activations(rows))

    def activate(self, pre: Float[Tensor, "rows n_latents"]) -> Float[Tensor, "rows n_latents"]:
        """Latents from pre-activations. Raises TrainingError for an SAE whose one threshold is not set."""
        architecture = INFERENCE[self.architecture]
        if architecture.has_threshold and self.threshold is None:
            raise TrainingError(
                f"this {self.architecture} SAE has no inference threshold yet: it is set after threshold_start_step"
            )
        return architecture.activate(pre, self)

    def decode(
        self, latents: Float[Tensor, "rows n_latents"], rows: Float[Tensor, "rows d_model"] | None = None
    ) -> Float[Tensor, "rows d_target"]:
        """Reconstruction of the rows, float32; of a transcoder, of the rows of its target.

        `rows` are what was encoded. Raises TrainingError if they are missing and the SAE `needs_rows`.
        """
        decoded = latents @ self.W_dec + self.b_dec
        if not self.needs_rows:
            return decoded
        if rows is None:
            raise TrainingError(
                f"this {self.architecture} SAE cannot be decoded from latents alone: row_scale is {self.row_scale!r}, "
                f"W_skip is {'absent' if self.W_skip is None else 'present'}; give the rows that were encoded"
            )
        rows = rows.float()
        if self.row_scale is not None:
            return self._row_scale().undone(decoded, rows)
        assert self.W_skip is not None  # else the rows are not needed
        return decoded + rows @ self.W_skip

    def _row_scale(self) -> RowScale:
        assert self.row_scale is not None  # asked for only then
        return ROW_SCALES[self.row_scale]


def save_sae(sae: Sae, folder: Path, metadata: dict[str, Any]) -> None:
    """Write an SAE; `metadata` needs `model_name` and `hook_name` (our grammar), the rest is kept beside them.

    A transcoder needs `target_hook_name` too, which an SAE must not have. Names of hooks for SAELens need
    `model_architecture`, the model's `model_type`: without it they are null.
    Raises TrainingError when the SAE could not be used: a weight that is not finite, or a threshold that was never set
    (inference would then keep every positive latent).
    """
    architecture = INFERENCE[sae.architecture]
    where = Path(folder) / WEIGHTS_FILE
    if architecture.has_threshold and (sae.threshold is None or not 0 <= sae.threshold < math.inf):
        raise TrainingError(
            f"{where}: threshold is {sae.threshold}, expected a number ≥ 0: it is first set after "
            "threshold_start_step; train for more steps or lower threshold_start_step"
        )
    for key in ("model_name", "hook_name", *(["target_hook_name"] if sae.is_transcoder else [])):
        if key not in metadata:
            raise TrainingError(f"{Path(folder) / CONFIG_FILE}: metadata lacks {key!r}")
    if not sae.is_transcoder and "target_hook_name" in metadata:
        raise TrainingError(
            f"{Path(folder) / CONFIG_FILE}: metadata has target_hook_name {metadata['target_hook_name']!r}, but this "
            "is an SAE, which reconstructs what it reads"
        )
    tensors = {name: getattr(sae, name) for name in _SHARED} | dict(sae.latent_parameters)
    tensors |= {} if sae.W_skip is None else {_SKIP: sae.W_skip.T}
    tensors = {architecture.saelens_names.get(name, name): tensor for name, tensor in tensors.items()}
    if architecture.has_threshold:
        assert sae.threshold is not None  # of an SAE that is written
        tensors["threshold"] = torch.full((sae.n_latents,), sae.threshold)
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    _check_tensors(tensors, where, sae.d_model, sae.n_latents, sae.d_target)
    with atomic_path(where) as temporary:
        save_file(tensors, temporary)
        # The checksum is with what is ours: SAELens does not know the key.
        ours = {**metadata, "weights_sha256": sha256_file(temporary), KEY: UNSEALED}
        write_sealed_text(Path(folder) / CONFIG_FILE, json_text(_saelens_config(sae, ours)))


def _saelens_config(sae: Sae, metadata: dict[str, Any]) -> dict[str, Any]:
    architecture = INFERENCE[sae.architecture]
    # Only topk's configuration has these; rescale_acts_by_decoder_norm changes what is selected.
    only_topk = {"k": sae.k, "rescale_acts_by_decoder_norm": False} if architecture.saelens == "topk" else {}
    width = {"d_out": sae.d_target} if sae.is_transcoder else {}
    return {
        "architecture": _saelens_architecture(architecture, sae.is_transcoder, sae.W_skip is not None),
        "d_in": sae.d_model,
        **width,
        "d_sae": sae.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centres,
        "normalize_activations": "none" if sae.row_scale is None else ROW_SCALES[sae.row_scale].saelens,
        "reshape_activations": "none",
        **only_topk,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": None,
            "model_name": metadata["model_name"],
            **saelens_hook_names(metadata),
            "atlas": {
                "architecture": sae.architecture,
                "k": sae.k,
                "threshold": sae.threshold,
                **({} if sae.row_scale is None else {"row_scale": sae.row_scale}),
                **({} if sae.W_skip is None else {"has_skip": True}),
                **metadata,
            },
        },
    }


def _saelens_architecture(architecture: Architecture, is_transcoder: bool, has_skip: bool) -> str:
    """The name in SAELens; for an inference path that it does not have, one that it refuses."""
    name = architecture.saelens
    if is_transcoder:
        name = _TRANSCODERS.get(architecture.name, architecture.saelens_transcoder)
    if has_skip:
        name = None if name is None else _SKIPPING.get(name)
    return f"atlas_{architecture.name}" if name is None else name


def saelens_hook_names(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what SAELens' metadata say of the hooks in ours, by TransformerLens' names; None where it has no such
    tensor.
    """
    ours = {"hook_name": "hook_name", "hook_name_out": "target_hook_name"}
    architecture = metadata.get("model_architecture")
    return {
        theirs: transformer_lens_name(metadata[key], architecture) for theirs, key in ours.items() if key in metadata
    }


def read_atlas_metadata(folder: Path) -> dict[str, Any]:
    """Return what `save_sae` was told besides the SAE; raises DamagedFileError when a bit of the configuration has
    changed.
    """
    ours = read_json(Path(folder) / CONFIG_FILE)["metadata"]["atlas"]
    return {key: value for key, value in ours.items() if key != KEY}


def load_sae(folder: Path) -> Sae:
    """Read an SAE that `save_sae` wrote.

    Raises TrainingError that names the file and key when a file is missing or damaged, the architecture is
    unknown, or weights have a wrong shape or are not finite.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        config = read_json(path)
        ours = config["metadata"]["atlas"]
        name, d_model, n_latents = ours["architecture"], config["d_in"], config["d_sae"]
        k, threshold, is_transcoder = ours["k"], ours["threshold"], "target_hook_name" in ours
        d_target = config["d_out"] if is_transcoder else d_model
        subtracts, row_scale = bool(config["apply_b_dec_to_input"]), ours.get("row_scale")
        sha256 = ours.get("weights_sha256")  # SAEs of earlier versions have none
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: is not the configuration of an SAE of this project ({error!r})") from error
    architecture = INFERENCE.get(name)
    has_skip = ours.get("has_skip", False)
    if architecture is None or config["architecture"] != _saelens_architecture(architecture, is_transcoder, has_skip):
        raise TrainingError(
            f"{path}: architecture is {config['architecture']!r}, by our name {name!r}; "
            f"expected one of {', '.join(INFERENCE)}"
        )
    if row_scale not in (None, *ROW_SCALES):
        raise TrainingError(f"{path}: row_scale is {row_scale!r}, expected one of {', '.join(ROW_SCALES)}")
    tensors = _read_tensors(Path(folder) / WEIGHTS_FILE, architecture, d_model, n_latents, d_target, has_skip)
    if sha256 is None:
        log.warning("%s: says no hash of the weights (an earlier version wrote it): they are not verified", path)
    elif (found := sha256_file(Path(folder) / WEIGHTS_FILE)) != sha256:
        raise TrainingError(
            f"{Path(folder) / WEIGHTS_FILE}: SHA-256 {found}, but {CONFIG_FILE} says {sha256}: altered since it was "
            f"trained; {AGAIN}"
        )
    if architecture.has_threshold:
        stored = tensors.pop("threshold")
        same = threshold is not None and bool((stored == torch.tensor(threshold, dtype=torch.float32)).all())
        if threshold is None or not same or threshold < 0:
            raise TrainingError(f"{path}: threshold is {threshold}, but the weights file has {stored[0].item()}")
    ours_by_theirs = {theirs: ours for ours, theirs in architecture.saelens_names.items()}
    tensors = {ours_by_theirs.get(name, name): tensor for name, tensor in tensors.items()}
    own = {name: tensors.pop(name) for name in architecture.latent_parameters}
    tensors |= {_SKIP: tensors[_SKIP].T.contiguous()} if has_skip else {}
    return Sae(
        name,
        k=k,
        threshold=threshold,
        latent_parameters=own,
        is_transcoder=is_transcoder,
        subtracts_b_dec=None if subtracts != is_transcoder else subtracts,
        row_scale=row_scale,
        **tensors,
    )


def _read_tensors(
    path: Path, architecture: Architecture, d_model: int, n_latents: int, d_target: int, has_skip: bool
) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: missing, truncated or not a safetensors file ({error}); {AGAIN}") from error
    ours = {*_SHARED, *architecture.latent_parameters, *([_SKIP] if has_skip else [])}
    expected = {architecture.saelens_names.get(name, name) for name in ours}
    expected |= {"threshold"} if architecture.has_threshold else set()
    if set(tensors) != expected:
        raise TrainingError(f"{path}: holds {sorted(tensors)}, expected {sorted(expected)}")
    _check_tensors(tensors, path, d_model, n_latents, d_target)
    return tensors


def _check_tensors(tensors: dict[str, Tensor], path: Path, d_model: int, n_latents: int, d_target: int) -> None:
    shapes = {"W_enc": (d_model, n_latents), "W_dec": (n_latents, d_target), "b_dec": (d_target,)}
    shapes |= {_SKIP: (d_target, d_model)}
    for name, tensor in tensors.items():
        expected = shapes.get(name, (n_latents,))
        if tuple(tensor.shape) != expected:
            raise TrainingError(f"{path}: {name} has shape {tuple(tensor.shape)}, expected {expected}")
        if not bool(tensor.isfinite().all()):
            raise TrainingError(f"{path}: {name} has values that are not finite; this SAE cannot be used")
