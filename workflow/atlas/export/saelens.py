"""SAELens 6: the layout in which SAEs are kept here, so its export is the files themselves."""

import shutil
from pathlib import Path

from atlas.export.source import TrainedSae
from atlas.files import atomic_path, read_json, write_json
from atlas.training.architectures import INFERENCE
from atlas.training.sae import CONFIG_FILE, WEIGHTS_FILE, Sae, saelens_hook_names


def refusal(sae: Sae) -> str | None:
    """Return why SAELens cannot hold this SAE; None: it can."""
    if INFERENCE[sae.architecture].saelens is None:
        return f"SAELens has no selection like that of {sae.architecture}"
    if sae.is_transcoder and sae.architecture == "topk" and sae.d_target != sae.d_model:
        return (
            "SAELens has no topk transcoder; its topk SAE can stand in for one only if both hooks have the same width, "
            f"and these have {sae.d_model} and {sae.d_target}"
        )
    return None


def write(trained: TrainedSae, folder: Path) -> None:
    """Copy configuration and weights, byte for byte.

    SAEs of earlier versions have names of hooks that mean other tensors of TransformerLens: their configuration is
    written with the right ones, or none.
    """
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        shutil.copyfile(trained.folder / WEIGHTS_FILE, temporary)
    config = read_json(trained.folder / CONFIG_FILE)
    right = config | {"metadata": config["metadata"] | hook_names(trained)}
    if right == config:
        with atomic_path(folder / CONFIG_FILE) as temporary:
            shutil.copyfile(trained.folder / CONFIG_FILE, temporary)
    else:
        write_json(folder / CONFIG_FILE, right)


def hook_names(trained: TrainedSae) -> dict[str, str | None]:
    """`hook_name`, and `hook_name_out` of a transcoder, as SAELens writes them."""
    hooks = {"hook_name": trained.hooks.source, "target_hook_name": trained.hooks.target_hook}
    return saelens_hook_names(
        {key: hook for key, hook in hooks.items() if hook is not None}
        | {"model_architecture": trained.card["model"].get("architecture")}
    )
