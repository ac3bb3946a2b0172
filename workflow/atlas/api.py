"""What `import atlas` offers to Python: open an SAE, trained here or published, and read a model's activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.texts import TextRows, read_texts
from atlas.errors import DamagedFileError, ReadingError, SourceError
from atlas.files import read_plain_json
from atlas.hook_points import HookPoint
from atlas.models.load import LoadedModel, load_model
from atlas.published import FORMATS, read_published
from atlas.runcard import read_run_card
from atlas.training.sae import CONFIG_FILE, Sae, load_sae, read_atlas_metadata

_CARD_FILE = "run_card.yaml"
_SHOWN = 5


@dataclass(frozen=True)
class OpenedSae:
    """An SAE with what is known of it.

    `hook` is where its rows come from, None where nobody says; `target_hook` what a transcoder reconstructs. `facts`
    are the run card, or what the files of a published SAE say; `assumed` the defaults that reading them took.
    """

    sae: Sae
    name: str
    hook: str | None
    target_hook: str | None
    facts: Mapping[str, Any]
    assumed: tuple[str, ...] = ()
    pages: Path | None = None

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return self.sae.n_latents

    def encode(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows n_latents"]:
        """Latents of rows as the model computes them, dense, float32."""
        with torch.inference_mode():
            return self.sae.encode(rows)

    def decode(
        self, latents: Float[Tensor, "rows n_latents"], rows: Float[Tensor, "rows d_model"] | None = None
    ) -> Float[Tensor, "rows d_target"]:
        """Reconstruction, float32. `rows` are what was encoded: some published SAEs cannot be decoded without."""
        with torch.inference_mode():
            return self.sae.decode(latents, rows)

    def page(self, latent: int) -> Path | None:
        """Its page in the atlas; None as long as `snakemake results/atlas/index.html` has not made it."""
        path = None if self.pages is None else self.pages / "latents" / f"{latent}.html"
        return path if path is not None and path.is_file() else None


def open_sae(
    path_or_id: str | Path, *, format: str | None = None, results: str | Path = "results", **states: Any
) -> OpenedSae:
    """Open an SAE by its id below ``<results>/saes``, by its folder, or, with `format`, a published one by its files.

    `states` are what the user says of a published one: ``hook``, and keys of the format that its files lack. Raises
    ReadingError that says what was expected; TrainingError for damaged files.
    """
    place, results = Path(path_or_id), Path(results)
    if format is not None:
        found = read_published(place, format, states)
        return OpenedSae(found.sae, str(path_or_id), found.hook, found.target_hook, found.facts, found.assumed)
    if states:
        raise ReadingError(f"{', '.join(states)} given without format; expected format='…' of {', '.join(FORMATS)}")
    saes = results / "saes"
    folder = place if place.is_dir() else saes / place
    if not folder.is_dir():
        known = sorted(path.parent.relative_to(saes).as_posix() for path in saes.glob(f"*/*/*/*/*/{CONFIG_FILE}"))
        listed = ", ".join(known[:_SHOWN]) or "none"
        raise ReadingError(f"{path_or_id}: neither a folder nor an SAE in {saes}, which has {len(known)}: {listed}")
    _require_ours(folder)
    metadata, card = read_atlas_metadata(folder), folder / _CARD_FILE
    own = folder.resolve().is_relative_to(saes.resolve()) if saes.is_dir() else False
    name = folder.resolve().relative_to(saes.resolve()).as_posix() if own else str(path_or_id)
    return OpenedSae(
        load_sae(folder),
        name,
        metadata["hook_name"],
        metadata.get("target_hook_name"),
        read_run_card(card) if card.is_file() else {},
        pages=results / "atlas" / "saes" / name if own else None,
    )


def read_activations(
    model: LoadedModel | str | Path, texts: str | Sequence[str], hook: str, *, results: str | Path = "results"
) -> list[TextRows]:
    """Rows of each text at a hook, token by token, float32.

    `model` is a prepared model: its name below ``<results>/models``, its folder, or what an earlier call loaded. Raises
    SourceError when there is none, ValueError for a hook of another grammar.
    """
    HookPoint.parse(hook)
    if isinstance(model, LoadedModel):
        loaded, folder = model, Path(model.tokenizer.name_or_path)
    else:
        folder = Path(model) if Path(model).is_dir() else Path(results) / "models" / model
        if not folder.is_dir():
            raise SourceError(
                f"{model}: neither the folder of a prepared model nor one of {Path(results) / 'models'}; make it with "
                f"snakemake {folder}"
            )
        loaded = load_model(folder, torch.device("cpu"))
    return read_texts(loaded, folder, [texts] if isinstance(texts, str) else texts, [hook])[hook]


def _require_ours(folder: Path) -> None:
    path = folder / CONFIG_FILE
    try:
        ours = "atlas" in read_plain_json(path)["metadata"]
    except (OSError, DamagedFileError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ReadingError(
            f"{path}: is not the configuration of an SAE of this project; for a published one give its format, one of "
            f"{', '.join(FORMATS)}"
        )
