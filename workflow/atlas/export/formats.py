"""One entry a format: whether it can hold an SAE, and how it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import ExportError
from atlas.export import dictionary_learning, huggingface, saelens, sparsify
from atlas.export.layout import CHECK_FILE, FILES, IDENTITY_FILE, READERS, files_of
from atlas.export.source import TrainedSae, read_trained
from atlas.files import read_json, sha256_file, write_json
from atlas.folder import Folder
from atlas.training.sae import Sae


@dataclass(frozen=True)
class ExportFormat:
    """`refusal(sae)` is why the format cannot hold it, or None; `write(trained, folder)` writes its files."""

    refusal: Callable[[Sae], str | None]
    write: Callable[[TrainedSae, Path], None]


FORMATS = {
    "saelens": ExportFormat(saelens.refusal, saelens.write),
    "dictionary_learning": ExportFormat(dictionary_learning.refusal, dictionary_learning.write),
    "sparsify": ExportFormat(sparsify.refusal, sparsify.write),
    "huggingface": ExportFormat(saelens.refusal, huggingface.write),
}


def export_sae(sae_folder: Folder, format_name: str, folder: Folder) -> None:
    """Write a trained SAE to `folder` in a format, and last an export.json that says what it is.

    Raises ExportError when the SAE cannot be read, the format cannot hold it, or `folder` holds something else.
    """
    if format_name not in FORMATS:
        raise ExportError(f"export format is {format_name!r}; expected one of {', '.join(FILES)}")
    trained, folder = read_trained(sae_folder), Path(folder)
    if reason := FORMATS[format_name].refusal(trained.sae):
        raise ExportError(f"{sae_folder}: no {format_name} export: {reason}")
    files = files_of(format_name, str(trained.hooks))
    _check_folder(folder, format_name, trained, files)
    FORMATS[format_name].write(trained, folder)
    write_json(
        folder / IDENTITY_FILE,
        {
            "format": format_name,
            "reader": READERS[format_name],
            "model": trained.model_name,
            "hooks": str(trained.hooks),
            "architecture": trained.sae.architecture,
            "weights_sha256": trained.weights_sha256,
            "files": {file: sha256_file(folder / file) for file in files},
        },
    )


def _check_folder(folder: Path, format_name: str, trained: TrainedSae, files: tuple[str, ...]) -> None:
    """Raise ExportError unless the folder is new, or holds this export already, finished or not."""
    if not folder.exists():
        return
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    known = {*files, IDENTITY_FILE, CHECK_FILE}
    foreign = sorted(file for file in found if file.removesuffix(".tmp") not in known)
    if foreign:
        raise ExportError(
            f"{folder}: holds {', '.join(foreign[:5])}, which is no part of a {format_name} export; name another folder"
        )
    if IDENTITY_FILE in found:
        identity = read_identity(folder)
        if (identity["format"], identity["weights_sha256"]) != (format_name, trained.weights_sha256):
            raise ExportError(
                f"{folder}: is the {identity['format']} export of another SAE ({identity['model']} "
                f"{identity['hooks']}, weights {identity['weights_sha256'][:12]}…); name another folder, or "
                "remove this one"
            )


def read_identity(folder: Path) -> dict:
    """Return what export.json says; raises ExportError when it is missing or is not one."""
    path = Path(folder) / IDENTITY_FILE
    try:
        identity = read_json(path)
        missing = {"format", "model", "hooks", "weights_sha256", "files"} - set(identity)
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: missing or damaged ({error}); export the SAE again") from error
    if missing:
        raise ExportError(f"{path}: lacks {', '.join(sorted(missing))}; export the SAE again")
    return identity


def verify_files(folder: Path) -> dict:
    """The identity of an export whose files are as they were written; raises ExportError that names one that is not."""
    identity = read_identity(folder)
    for file, expected in identity["files"].items():
        path = Path(folder) / file
        if not path.is_file() or sha256_file(path) != expected:
            raise ExportError(f"{path}: missing, or altered since it was exported; export the SAE again")
    return identity
