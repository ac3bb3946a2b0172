"""Bring the files of a published SAE here, and check what can be known of them before any model is run."""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from atlas.config.saes import PublishedSae
from atlas.config.sources import HubSource, PackageSource, PathSource
from atlas.errors import ReadingError, SourceError
from atlas.files import atomic_path, read_json, sha256_file, write_json
from atlas.hook_points import SaeHooks
from atlas.published.base import Published
from atlas.published.read import FORMATS, read_published
from atlas.sources.hub import LOCK_FILE, download_files, list_files, resolve_revision
from atlas.sources.packages import unpack
from atlas.training.sae import Sae

log = logging.getLogger(__name__)

RECORD_FILE, FILES_FOLDER = "published.json", "files"
_SHOWN = 5


def fetch_published(
    name: str, spec: PublishedSae, d_model: int, wheels: Sequence[Path], folder: Path, lock: Path = LOCK_FILE
) -> None:
    """Copy the files of `saes.<name>` that its format needs to `folder`/files, and write published.json beside them.

    `d_model` is the width of the model's rows, `lock` the file that pins the commits of hub sources. Raises
    SourceError when a file is missing, and ReadingError when the files are not read as stated, or do not fit the model.
    """
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        files = temporary / FILES_FOLDER
        files.mkdir(parents=True)
        copied = _copy(_Wanted(f"saes.{name}", spec.source, spec.folder, spec.format), wheels, files, lock)
        published = _read(name, spec, files / copied.place)
        _check(name, spec, published.sae, d_model)
        _write_record(temporary, name, spec.source, spec.folder, copied)
    log.info("SAE %s: %s, %d latents, width %d", name, published.sae.architecture, spec.n_latents, d_model)


def read_fetched(name: str, spec: PublishedSae, folder: Path) -> tuple[Published, dict[str, Any]]:
    """Read what `fetch_published` brought, and its record; raises ReadingError when a file has changed since."""
    record = _verified(folder)
    return _read(name, spec, folder / FILES_FOLDER / record["place"]), record


def download_published(
    source: HubSource, folder: str, format: str, kept: Path, lock: Path
) -> tuple[Path, dict[str, Any]]:
    """Bring the files of an SAE of a hub below `kept`, once per commit; return its place there, and the record.

    `folder` is the SAE's folder or file in the repository, `lock` the file that pins the commits of branches. Raises
    SourceError when the hub cannot be asked or lacks the files, ReadingError when a file has changed since.
    """
    if format not in FORMATS:
        raise ReadingError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    commit = resolve_revision(source, lock, "model")
    target = kept / source.id / commit / format / (folder.replace("/", "--") or "whole")
    if not target.is_dir():
        with atomic_path(target) as temporary:
            (temporary / FILES_FOLDER).mkdir(parents=True)
            copied = _copy(_Wanted(source.id, source, folder, format), [], temporary / FILES_FOLDER, lock)
            _write_record(temporary, source.id, source, folder, copied)
    record = _verified(target)
    return target / FILES_FOLDER / record["place"], record


def _write_record(
    folder: Path, name: str, source: HubSource | PackageSource | PathSource, inside: str, copied: "_Copied"
) -> None:
    record = {
        "name": name,
        "source": source.model_dump(mode="json"),
        "folder": inside,
        "revision": copied.revision,
        "place": copied.place,
        "files_sha256": {each: sha256_file(folder / FILES_FOLDER / each) for each in copied.names},
    }
    write_json(folder / RECORD_FILE, record)


def _verified(folder: Path) -> dict[str, Any]:
    record = read_json(folder / RECORD_FILE)
    for each, said in record["files_sha256"].items():
        path = folder / FILES_FOLDER / each
        found = sha256_file(path) if path.is_file() else "no file"
        if found != said:
            raise ReadingError(
                f"{path}: SHA-256 {found}, but {RECORD_FILE} says {said}: altered since it was fetched; "
                f"delete {folder} and run again"
            )
    return record


def wanted_files(names: Sequence[str], folder: str, patterns: Sequence[str]) -> list[str]:
    """List the files of a source that are `folder` itself, or match a pattern below it, sorted."""
    if folder in names:
        return [folder]
    below = PurePosixPath(folder)
    inside = {name: PurePosixPath(name) for name in names}
    relative = {name: path.relative_to(below) for name, path in inside.items() if path.is_relative_to(below)}
    return sorted(
        name
        for name, path in relative.items()
        for pattern in patterns
        if path.match(pattern) and len(path.parts) == len(PurePosixPath(pattern).parts)
    )


@dataclass(frozen=True)
class _Wanted:
    """An SAE's source, its folder there and the format of its files; `where` names it in errors."""

    where: str
    source: HubSource | PackageSource | PathSource
    folder: str
    format: str


@dataclass(frozen=True)
class _Copied:
    """The revision of the source, the files that were copied, and where among them the SAE is: its folder or file.

    Names of folders are kept, because some formats say layer or hook there alone.
    """

    revision: str | None
    names: list[str]
    place: str


def _copy(wanted: _Wanted, wheels: Sequence[Path], target: Path, lock: Path) -> _Copied:
    patterns, source, revision, above = FORMATS[wanted.format].patterns, wanted.source, None, PurePosixPath()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".source.") as scratch:
        if isinstance(source, HubSource):
            revision = resolve_revision(source, lock, "model")
            there = list_files(source, revision)
            chosen = _require(wanted, wanted_files(there, wanted.folder, patterns), there)
            root = Path(scratch, "snapshot")
            download_files(source, revision, chosen, root)
        else:
            root, revision = _opened(source, wheels, Path(scratch))
            if root.is_file():
                if wanted.folder:
                    raise SourceError(f"{wanted.where}.folder is {wanted.folder!r}, but {root} is a file; leave it out")
                shutil.copyfile(root, target / root.name)
                return _Copied(revision, [root.name], root.name)
            above = PurePosixPath(root.name)
            there = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
            chosen = _require(wanted, wanted_files(there, wanted.folder, patterns), there)
        names = [(above / each).as_posix() for each in chosen]
        for each, own in zip(chosen, names, strict=True):
            (target / own).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / each, target / own)
    return _Copied(revision, names, (above / wanted.folder).as_posix())


def _opened(source: PackageSource | PathSource, wheels: Sequence[Path], scratch: Path) -> tuple[Path, str | None]:
    if isinstance(source, PackageSource):
        return unpack(source, wheels, scratch)
    if not (path := Path(source.path)).exists():
        raise SourceError(f"{path}: does not exist; expected the folder or file of a published SAE")
    return path.resolve(), None


def _require(wanted: _Wanted, chosen: list[str], there: list[str]) -> list[str]:
    if chosen:
        return chosen
    patterns = ", ".join(FORMATS[wanted.format].patterns)
    near = [each for each in there if wanted.folder.rpartition("/")[2] in each][:_SHOWN] or there[:_SHOWN]
    raise SourceError(
        f"{wanted.where}: format {wanted.format} needs {patterns} in folder {wanted.folder or '.'!r}, and its source "
        f"has no such file; of its {len(there)} files some are {', '.join(near) or 'none'}; correct 'folder' or "
        "'format'"
    )


def _read(name: str, spec: PublishedSae, place: Path) -> Published:
    target = {} if spec.target_hook is None else {"target_hook": spec.target_hook}
    try:
        return read_published(place, spec.format, {"hook": spec.hook, **target, **spec.states})
    except ReadingError as error:
        raise ReadingError(f"saes.{name}: {error}") from error


def _check(name: str, spec: PublishedSae, sae: Sae, d_model: int) -> None:
    """Raise ReadingError where the files hold something else than the configuration says."""
    hooks = SaeHooks.of(spec.hook, spec.target_hook)
    if sae.is_transcoder != hooks.is_transcoder:
        kind = "a transcoder" if sae.is_transcoder else "an SAE, which reconstructs what it reads"
        remedy = "give target_hook" if sae.is_transcoder else "leave out target_hook"
        raise ReadingError(f"saes.{name}.target_hook is {spec.target_hook!r}, but the files are of {kind}; {remedy}")
    if sae.n_latents != spec.n_latents:
        raise ReadingError(
            f"saes.{name}.n_latents is {spec.n_latents}, but the files have {sae.n_latents}; correct it: jobs ask for "
            "memory by it"
        )
    for size, found in {"d_model": sae.d_model, "d_target": sae.d_target}.items():
        if found != d_model:
            raise ReadingError(
                f"saes.{name}: {size} of the files is {found}, but rows of {hooks} of model {spec.model!r} have width "
                f"{d_model}; it was trained on another model or hook, or the files mean something else"
            )
