"""Files that are either complete or absent, and hashes that name what is in them."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas.errors import DamagedFileError

AGAIN = "delete this file and run again; it will be made anew"


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


def write_json(target: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, because JSON has neither: use null and a reason."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises DamagedFileError that names it when it is not whole."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(
            f"{path}: not whole JSON ({error}); get it again, or, if it is a result, {AGAIN}"
        ) from error


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_strings(parts: Iterable[str]) -> str:
    """SHA-256 of a sequence of strings; lengths are hashed too, so that joins cannot collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
