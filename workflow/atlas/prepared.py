"""The folder of a prepared model: what its identity.json says, and that its files are still those that were saved."""

import logging
from pathlib import Path
from typing import Any

from atlas.errors import DamagedFileError, SourceError
from atlas.files import read_json, sha256_file

log = logging.getLogger(__name__)

IDENTITY_FILE = "identity.json"
_REMEDY = "delete the folder of this file and run again; it will be made anew"


def read_identity(folder: Path) -> dict[str, Any]:
    """identity.json of a prepared model; raises SourceError when there is none, or a bit of it has changed."""
    path = Path(folder) / IDENTITY_FILE
    if not path.is_file():
        raise SourceError(f"{path} is missing: {folder} is not a prepared model; run the rule that prepares it")
    try:
        return read_json(path, _REMEDY)
    except DamagedFileError as error:
        raise SourceError(str(error)) from error


def verified_identity(folder: Path) -> dict[str, Any]:
    """The identity, after configuration and tokenizer were compared with it; weights are `load_model`'s to verify.

    Raises SourceError that names the file: a changed digit of the configuration is another model.
    """
    identity = read_identity(folder)
    if "files_sha256" not in identity:
        log.warning("%s: says no hashes of configuration and tokenizer: they are not verified", folder)
    for name, said in identity.get("files_sha256", {}).items():
        path = Path(folder) / name
        if not path.is_file():
            raise SourceError(f"{path}: is missing; {_REMEDY}")
        if (found := sha256_file(path)) != said:
            raise SourceError(
                f"{path}: SHA-256 {found}, but {IDENTITY_FILE} says {said}: truncated or altered; {_REMEDY}"
            )
    return identity
