"""SAELens 6: the layout in which SAEs are kept here, so its export is the files themselves."""

import shutil
from pathlib import Path

from atlas.export.source import TrainedSae
from atlas.files import atomic_path
from atlas.training.sae import CONFIG_FILE, WEIGHTS_FILE, Sae


def refusal(sae: Sae) -> str | None:
    """Why SAELens cannot hold this SAE; None: it can."""
    if sae.is_transcoder and sae.architecture == "topk" and sae.d_target != sae.d_model:
        return (
            "SAELens has no topk transcoder; its topk SAE can stand in for one only if both hooks have the same width, "
            f"and these have {sae.d_model} and {sae.d_target}"
        )
    return None


def write(trained: TrainedSae, folder: Path) -> None:
    """Copy configuration and weights, byte for byte."""
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(trained.folder / name, temporary)
