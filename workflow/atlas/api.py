"""Interface of `import atlas`: open an SAE, trained here or published, and read a model's activations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.activations.texts import TextRows, read_texts
from atlas.config.sources import HubSource
from atlas.errors import DamagedFileError, ReadingError, SourceError
from atlas.files import read_plain_json
from atlas.hook_points import HookPoint
from atlas.models.load import LoadedModel, load_model
from atlas.published import FORMATS, read_published
from atlas.published.fetch import download_published
from atlas.runcard import read_run_card
from atlas.sae_ids import NOT_STATED
from atlas.sources.hub import LOCK_FILE
from atlas.training.sae import CONFIG_FILE, Sae, load_sae, read_atlas_metadata

_CARD_FILE = "run_card.yaml"
_SHOWN = 5
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HINT = "; one of the hub needs its format"


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
    path_or_id: str | Path,
    *,
    format: str | None = None,
    folder: str = "",
    revision: str | None = None,
    results: str | Path = "results",
    **states: Any,
) -> OpenedSae:
    """Open an SAE by its id below ``<results>/saes``, by its folder, or, with `format`, a published one by its files.

    A published one may be on the Hugging Face hub: `path_or_id` is then the repository (``org/name``), and no folder
    here. `folder` is its folder or file in the repository, or below the path. `revision` is a branch, tag or commit. A
    branch (``main`` if left out) is resolved once, in ``config/revisions.lock.yaml`` beside `results`, as for rows of
    studies. Files are kept below ``<results>/downloads/hub``.

    `states` are what the user says of a published one: ``hook``, and keys of the format that its files lack. Raises
    ReadingError that says what was expected; SourceError when the hub cannot be asked, or lacks the files;
    TrainingError for damaged files.
    """
    place, results = Path(path_or_id), Path(results)
    if format is not None:
        return _open_published(str(path_or_id), format, folder, revision, results, states)
    told = states | ({"folder": folder} if folder else {}) | ({} if revision is None else {"revision": revision})
    if told:
        raise ReadingError(f"{', '.join(told)} given without format; expected format='…' of {', '.join(FORMATS)}")
    saes = results / "saes"
    found = place if place.is_dir() else saes / place
    if not found.is_dir():
        known = sorted(path.parent.relative_to(saes).as_posix() for path in saes.glob(f"*/*/*/*/*/{CONFIG_FILE}"))
        listed = ", ".join(known[:_SHOWN]) or "none"
        raise ReadingError(
            f"{path_or_id}: neither a folder nor an SAE in {saes}, which has {len(known)}: {listed}{_HINT}"
        )
    _require_ours(found)
    metadata, card = read_atlas_metadata(found), found / _CARD_FILE
    own = found.resolve().is_relative_to(saes.resolve()) if saes.is_dir() else False
    name = found.resolve().relative_to(saes.resolve()).as_posix() if own else str(path_or_id)
    return OpenedSae(
        load_sae(found),
        name,
        metadata["hook_name"],
        metadata.get("target_hook_name"),
        read_run_card(card) if card.is_file() else {},
        pages=results / "atlas" / "saes" / name if own else None,
    )


def _open_published(
    name: str, format: str, folder: str, revision: str | None, results: Path, states: Mapping[str, Any]
) -> OpenedSae:
    place, source = Path(name), {}
    if place.exists():
        if revision is not None:
            raise ReadingError(f"revision is {revision!r}, but {name} is a folder or file here; leave it out")
        place = place / folder
    elif _HUB_ID.fullmatch(name):
        hub = HubSource(kind="hub", id=name, revision=revision or "main", licence=NOT_STATED)
        kept, lock = results / "downloads" / "hub", results.parent / LOCK_FILE
        try:
            place, record = download_published(hub, folder, format, kept, lock)
        except SourceError as error:
            raise SourceError(f"{name}: no folder or file here, hence looked for on the hub: {error}") from error
        source = {"source": {"hub": name, "folder": folder, "revision": record["revision"]}}
    else:
        raise ReadingError(
            f"{name}: neither a folder or file here nor the name of a hub repository; expected a path, or 'org/name'"
        )
    found = read_published(place, format, states)
    return OpenedSae(found.sae, name, found.hook, found.target_hook, {**found.facts, **source}, found.assumed)


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
