"""The proof of an export: the peer's own loader reads it, and its numbers are ours.

Latents and reconstructions are compared row by row, the largest difference of a row as a share of the row's largest
value. A selection (the k largest, a threshold, a gate) can fall either way when two values are closer than float32 can
tell, and then a whole value is missing; such rows say nothing about the export and are not drawn.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlas.errors import ExportError
from atlas.export.environments import run_isolated
from atlas.export.formats import verify_files
from atlas.export.source import TrainedSae, read_trained
from atlas.files import write_json, write_plain_json
from atlas.folder import Folder
from atlas.training.sae import Sae

TOLERANCE = 1e-5
N_ROWS = 256
_CANDIDATES = 16 * N_ROWS
READER_SCRIPT = Path(__file__).parents[2] / "peers" / "read_export.py"


@dataclass(frozen=True)
class Export:
    """An export in `folder` of the SAE in `sae_folder`."""

    format_name: str
    sae_folder: Folder
    folder: Folder


def check_export(export: Export, python: Path, target: Path) -> None:
    """Check one export (see `check_exports`) and write the report."""
    write_json(target, check_exports([export], python)[0])


def check_exports(exports: list[Export], python: Path) -> list[dict[str, Any]]:
    """Compare exports, as the peer in the environment of `python` reads them, with their SAEs; a report for each.

    Raises ExportError when an export is not of its SAE, altered, not loaded by the peer, or differs by more than
    `TOLERANCE`.
    """
    saes = [_matching(export) for export in exports]
    rows = [draw_rows(trained.sae) for trained in saes]
    with tempfile.TemporaryDirectory() as scratch:
        read = _read_with_peer(exports, saes, rows, Path(python), Path(scratch))
        return [_report(*each) for each in zip(exports, saes, rows, read, strict=True)]


def _matching(export: Export) -> TrainedSae:
    trained, identity = read_trained(export.sae_folder), verify_files(export.folder)
    if (identity["format"], identity["weights_sha256"]) != (export.format_name, trained.weights_sha256):
        raise ExportError(
            f"{export.folder}: is the {identity['format']} export of weights {identity['weights_sha256'][:12]}…, "
            f"expected {export.format_name} of {trained.weights_sha256[:12]}… ({export.sae_folder}); export it again"
        )
    return trained


def _read_with_peer(
    exports: list[Export], saes: list[TrainedSae], rows: list[Tensor], python: Path, scratch: Path
) -> list[Path]:
    """Files with what the peer computed."""
    jobs = []
    for number, (export, trained) in enumerate(zip(exports, saes, strict=True)):
        given = scratch / f"rows-{number}.safetensors"
        save_file({"rows": rows[number]}, given)
        job = {"format": export.format_name, "folder": str(export.folder), "hooks": str(trained.hooks)}
        jobs.append(job | {"rows": str(given), "target": str(scratch / f"read-{number}.safetensors")})
    write_plain_json(scratch / "jobs.json", jobs)
    what = f"loading {', '.join(job['folder'] for job in jobs)} with {python}"
    run_isolated(python, [str(READER_SCRIPT), str(scratch / "jobs.json")], what)
    return [Path(job["target"]) for job in jobs]


def _report(export: Export, trained: TrainedSae, rows: Tensor, read: Path) -> dict[str, Any]:
    theirs = load_file(read)
    with safe_open(read, framework="pt") as file:
        reader = file.metadata()
    latents = trained.sae.encode(rows)
    ours = {"latents": latents, "reconstruction": trained.sae.decode(latents)}
    errors = {name: largest_error(ours[name], theirs[name], f"{export.folder}: {name}") for name in ours}
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise ExportError(
                f"{export.folder}: {name} of {reader['class']} ({reader['version']}) differ from ours by {error:.3g} "
                f"of the row's largest value, more than {TOLERANCE:g}; this export must not be used"
            )
    return {
        "format": export.format_name,
        "sae": str(export.sae_folder),
        "weights_sha256": trained.weights_sha256,
        "reader": reader,
        "n_rows": len(rows),
        "l0": (latents > 0).sum().item() / len(rows),
        "latents_that_fired": int((latents > 0).any(dim=0).sum()),
        "tolerance": TOLERANCE,
        "largest_relative_error": errors,
    }


def largest_error(ours: Float[Tensor, "rows columns"], theirs: Tensor, where: str) -> float:
    """Largest difference of any row as a share of the row's largest value; infinite where only one of both is 0."""
    if ours.shape != theirs.shape or theirs.dtype != torch.float32:
        raise ExportError(
            f"{where}: the peer gave {tuple(theirs.shape)} of {theirs.dtype}, expected {tuple(ours.shape)} of float32"
        )
    difference = (ours - theirs).abs().amax(dim=1).double()
    size = ours.abs().amax(dim=1).double()
    relative = torch.where(difference > 0, difference / size, difference)
    return relative.max().item()


def draw_rows(sae: Sae, n_rows: int = N_ROWS, seed: int = 0) -> Float[Tensor, "rows d_model"]:
    """Rows on which latents fire and no selection is too close to call: sizes over three decades, and the zero row.

    Half are made of a few encoder directions, half are without structure. Raises ExportError when too few are decided,
    or no latent fires on any: a comparison would then prove nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    candidates = _candidates(sae, generator)
    kept = []
    for block in candidates.split(n_rows):  # a block at a time: dense float64 latents of large dictionaries are large
        kept.append(block[is_decided(sae, block)])
        if sum(map(len, kept)) >= n_rows:
            break
    rows = torch.cat(kept)[:n_rows]
    if len(rows) < n_rows // 4:
        raise ExportError(
            f"of {len(candidates)} rows only {len(rows)} have latents that float32 decides; this SAE cannot be "
            f"compared to {TOLERANCE:g}"
        )
    if not bool((sae.encode(rows) > 0).any()):
        raise ExportError("no latent fires on any row that was tried; a comparison of this SAE would prove nothing")
    return rows


def _candidates(sae: Sae, generator: torch.Generator) -> Float[Tensor, "rows d_model"]:
    centre = torch.zeros(sae.d_model) if sae.is_transcoder else sae.b_dec
    directions = sae.W_enc / sae.W_enc.norm(dim=0).clamp_min(1e-30)
    # The length at which biases and thresholds matter as much as the row.
    limits = [sae.b_enc.abs(), *([] if sae.threshold is None else [torch.tensor([sae.threshold])])]
    limits += [tensor.abs() for name, tensor in sae.latent_parameters.items() if name != "r_mag"]
    gain = max(sae.W_enc.norm(dim=0).mean().item(), 1e-12)
    length = max([tensor.max().item() / gain for tensor in limits] + [0.1 * centre.norm().item(), 1e-3])
    few = min(8, sae.n_latents)
    rows = []
    for number in range(_CANDIDATES):
        if number % 2:
            row = torch.randn(sae.d_model, generator=generator)
        else:
            chosen = torch.randint(sae.n_latents, (few,), generator=generator)
            row = directions[:, chosen] @ torch.rand(few, generator=generator)
        scale = 10 ** (3 * torch.rand((), generator=generator) - 1)
        rows.append(centre + length * scale * row / row.norm().clamp_min(1e-30))
    rows[2] = torch.zeros(sae.d_model)
    return torch.stack(rows).float()


def is_decided(sae: Sae, rows: Float[Tensor, "rows d_model"]) -> Bool[Tensor, " rows"]:
    """Return whether rounding in float32 cannot change which latents of a row pass.

    Pre-activations move by as much as rounding may move them (``4 sqrt(d_model)`` units in the last place of the
    largest products), those that pass down and the others up. A latent then comes or goes where it was too close to
    call; that does not count where its value is itself within rounding of 0, as at the bend of a ReLU.
    """
    rows, weights = rows.double(), sae.W_enc.double()
    centred = rows if sae.is_transcoder else rows - sae.b_dec.double()
    pre = centred @ weights + sae.b_enc.double()
    unit = 4 * 2.0**-24 * sae.d_model**0.5
    # The centre counts too: a peer that has folded it into the bias rounds in its place.
    reach = rows.norm(dim=1) + (0.0 if sae.is_transcoder else sae.b_dec.double().norm())
    rounding = unit * (reach.unsqueeze(1) * weights.norm(dim=0) + sae.b_enc.double().abs())
    latents = sae.activate(pre)
    moved = sae.activate(torch.where(latents > 0, pre - rounding, pre + rounding))
    changed = (latents > 0) != (moved > 0)
    return ~(changed & (torch.maximum(latents, moved) > 2 * rounding)).any(dim=1)
