"""Source of an export: the folder of a trained SAE, read whole and checked against itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import DamagedFileError, ExportError, TrainingError
from atlas.files import sha256_file
from atlas.hook_points import SaeHooks
from atlas.runcard import missing_fields, read_run_card
from atlas.training.sae import CONFIG_FILE, WEIGHTS_FILE, Sae, load_sae, read_atlas_metadata

CARD_FILE = "run_card.yaml"


@dataclass(frozen=True)
class TrainedSae:
    """An SAE or transcoder with its run card; `model_name` is the model's name in the configuration."""

    sae: Sae
    folder: Path
    model_name: str
    hooks: SaeHooks
    card: dict[str, Any]
    weights_sha256: str

    @property
    def is_public(self) -> bool:
        """Return whether the card withholds the recipe."""
        return self.card.get("reporting") == "public"


def read_trained(folder: Path) -> TrainedSae:
    """Read the folder of a trained SAE.

    Raises ExportError that names the file when one is missing or damaged, or when the run card is incomplete or
    describes another SAE than the weights.
    """
    folder = Path(folder)
    try:
        sae = load_sae(folder)
    except TrainingError as error:
        raise ExportError(f"no SAE to export: {error}") from error
    metadata = read_atlas_metadata(folder)
    try:
        hooks = SaeHooks.of(metadata["hook_name"], metadata.get("target_hook_name"))
        model_name = metadata["model_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder / CONFIG_FILE}: metadata.atlas names no model and hook ({error!r})") from error
    card = _read_card(folder / CARD_FILE)
    _check_card(folder / CARD_FILE, card, sae, model_name, hooks)
    return TrainedSae(sae, folder, model_name, hooks, card, sha256_file(folder / WEIGHTS_FILE))


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = read_run_card(path)
    except OSError as error:
        raise ExportError(f"{path}: missing ({error}); train the SAE again") from error
    except DamagedFileError as error:
        raise ExportError(str(error)) from error
    if not isinstance(card, dict):
        raise ExportError(f"{path}: holds {type(card).__name__}, expected the sections of a run card")
    if card.get("reporting") != "public" and (missing := missing_fields(card)):
        raise ExportError(
            f"{path}: the run card lacks {', '.join(missing)}; it is damaged or of an older version: train "
            "the SAE again"
        )
    return card


def _check_card(path: Path, card: dict[str, Any], sae: Sae, model_name: str, hooks: SaeHooks) -> None:
    """The card of another SAE would put wrong facts beside these weights."""
    described = {
        "model.name": (card.get("model") or {}).get("name"),
        "hook": card.get("hook"),
        "target_hook": card.get("target_hook"),
    }
    actual = {"model.name": model_name, "hook": hooks.source, "target_hook": hooks.target_hook}
    for key in ("architecture", "d_model", "n_latents", "d_target", "k"):
        if key in (card.get("sae") or {}):
            described[f"sae.{key}"], actual[f"sae.{key}"] = card["sae"][key], getattr(sae, key)
    for key, value in described.items():
        if value != actual[key]:
            raise ExportError(
                f"{path}: {key} is {value!r}, but the SAE beside it has {actual[key]!r}; card and weights must be of "
                "one training"
            )
