"""Files that are either complete or absent, and hashes that name what is in them."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas.errors import DamagedFileError
from atlas.sealed import AGAIN, KEY, UNSEALED, seal, sealed, verify_content


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield ``<target>.tmp``; on success fsync and rename it to `target`, on error remove it.

    The temporary file stands beside the target, so that the rename never crosses a file system. A reader
    sees the old file or the new one, never a part; a process killed before the rename leaves no target.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    _remove(temporary)
    try:
        yield temporary
        _share(temporary)
        _sync(temporary)
        if target.is_dir() and temporary.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
        _sync(target.parent)
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _share(path: Path) -> None:
    """Let the user's umask decide who reads a file: safetensors makes its files readable by their owner alone."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink() and (mode := stat.S_IMODE(file.stat().st_mode)) == 0o600:
            file.chmod(mode | 0o666 & ~umask)


def _sync(path: Path) -> None:
    """fsync a file, or every file of a folder and the folder itself."""
    if path.is_dir():
        for child in path.iterdir():
            if child.is_file():
                _sync_one(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def sealed_path(target: Path | str) -> Iterator[Path]:
    """The same as `atomic_path`, for a file that the body writes with `UNSEALED` in it: the checksum is put there."""
    with atomic_path(target) as temporary:
        yield temporary
        seal(temporary)


def write_sealed_text(target: Path | str, text: str) -> None:
    """Write UTF-8 text atomically, with its checksum where the text has `UNSEALED`."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(sealed(text.encode("utf-8")))


def json_text(value: Any) -> str:
    """JSON as it is written; NaN and infinity are refused, because JSON has neither: use null and a reason."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(target: Path | str, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with its checksum as the last key, which `read_json` verifies."""
    write_sealed_text(target, json_text({**value, KEY: UNSEALED}))


def write_plain_json(target: Path | str, value: Any) -> None:
    """Write JSON of another program's format atomically: without a key that the format does not have."""
    write_text(target, json_text(value))


def read_json(path: Path | str, remedy: str = AGAIN) -> Any:
    """Read JSON that `write_json` wrote. Raises DamagedFileError that names the file when a bit of it has changed.

    A file without checksum, of an earlier version, is named in the log.
    """
    content, value = _read_json(path, f"get it again, or, if it is a result, {remedy}")
    if isinstance(value, dict) and KEY in value and UNSEALED[:-32] not in str(value[KEY]):
        raise DamagedFileError(f"{path}: {KEY} is {value[KEY]!r}, which is no checksum; {remedy}")
    verify_content(path, content, remedy)
    return {key: each for key, each in value.items() if key != KEY} if isinstance(value, dict) else value


def read_plain_json(path: Path | str) -> Any:
    """Read JSON of another program, which has no checksum. Raises DamagedFileError when it is not whole."""
    return _read_json(path, "get it again")[1]


def _read_json(path: Path | str, remedy: str) -> tuple[bytes, Any]:
    content = Path(path).read_bytes()
    try:
        return content, json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"{path}: not whole JSON ({error}); {remedy}") from error


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_files(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by its name."""
    return {path.name: sha256_file(path) for path in paths}


def sha256_strings(parts: Iterable[str]) -> str:
    """SHA-256 of a sequence of strings; lengths are hashed too, so that joins cannot collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
