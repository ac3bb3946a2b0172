"""Cases that a peer wrote, and how far our reading of them is from the peer's."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from atlas.published import read_published

TOLERANCE = 1e-5


def cases_of(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "cases.json").read_text())


def read_case(folder: Path, name: str):
    case = cases_of(folder)[name]
    return read_published(folder / name / case["place"], case["format"], case["stated"])


def largest_errors(folder: Path, name: str) -> dict[str, float]:
    """Largest differences in units of the largest value. Ties may go to another latent: values are compared sorted."""
    sae, numbers = read_case(folder, name).sae, load_file(folder / name / "numbers.safetensors")
    rows, theirs = numbers["rows"], numbers["latents"]
    latents = sae.encode(rows)
    pairs = {
        "latents": (latents.sort(dim=1).values, theirs.sort(dim=1).values),
        "reconstruction": (sae.decode(latents, rows), numbers["reconstruction"]),
        "decoder": (sae.decode(theirs, rows), numbers["reconstruction"]),
    }
    if len(rows) < 100:  # among more, one may lie within rounding of its threshold
        assert torch.equal(latents > 0, theirs > 0)
    return {what: ((a - b).abs().max() / b.abs().max()).item() for what, (a, b) in pairs.items()}
