"""Checksums inside files: a bit that changes is an error when the file is read, never another number.

The mark and 32 hexadecimal digits stand somewhere in the file where its format allows text: a key of JSON, a comment of
YAML, the metadata of safetensors and Parquet, bytes behind an array. The digits are the XXH3-128 of all bytes of the
file, with zeros in their own place. Other programs read such a file as any other.
"""

import io
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from atlas.errors import DamagedFileError

log = logging.getLogger(__name__)

AGAIN = "delete this file and run again; it will be made anew"
# The key that holds the checksum, in formats that have keys.
KEY = "integrity"
_MARK = b"sae-atlas-xxh3-128:"
_ZEROS = b"0" * 32
UNSEALED = (_MARK + _ZEROS).decode()
_CHUNK = 1 << 23
_TAIL = 1 << 20


def seal(path: Path) -> None:
    """Put the checksum of a file into its place, where the writer left `UNSEALED`."""
    with path.open("r+b") as stream:
        place = _place(stream)
        if place is None:
            raise ValueError(f"{path}: has no place for its checksum")
        digits = _digest(stream, place)
        stream.seek(place)
        stream.write(digits)


def sealed(content: bytes) -> bytes:
    """The same as `seal`, in memory."""
    stream = io.BytesIO(content)
    place = _place(stream)
    if place is None:
        raise ValueError("content has no place for its checksum")
    return content[:place] + _digest(stream, place) + content[place + len(_ZEROS) :]


def checksum(content: bytes) -> str:
    """The checksum of bytes whose format has no place for it."""
    return _hash(content).hexdigest()


def verify(path: Path | str, remedy: str = AGAIN) -> bool:
    """Raise DamagedFileError unless the file has the bytes that were written; returns whether it has a checksum.

    A file is read once by each process, unless it changes. A file without checksum is named in the log: an earlier
    version or another program wrote it.
    """
    path = Path(path)
    try:
        status = path.stat()
        problem = _problem_of(str(path), (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error}); {remedy}") from error
    _report(path, problem, remedy)
    return problem is None


def verify_content(path: Path | str, content: bytes, remedy: str = AGAIN) -> None:
    """The same as `verify`, of bytes that were read from `path`."""
    _report(Path(path), _problem(io.BytesIO(content)), remedy)


@lru_cache(maxsize=4096)
def _problem_of(path: str, status: tuple[int, ...]) -> str | None:
    with Path(path).open("rb") as stream:
        return _problem(stream)


def _problem(stream: BinaryIO) -> str | None:
    """Nothing for a file as it was written, an empty text for one without checksum, else what is wrong."""
    place = _place(stream)
    if place is None:
        return ""
    stream.seek(place)
    said = stream.read(len(_ZEROS))
    found = _digest(stream, place)
    if said == found:
        return None
    return f"its checksum is {found.decode()}, but it says {said.decode(errors='replace')}"


def _report(path: Path, problem: str | None, remedy: str) -> None:
    if problem:
        raise DamagedFileError(f"{path}: truncated or altered since it was written: {problem}; {remedy}")
    if problem == "":
        log.warning("%s: has no checksum (an earlier version or another program wrote it): it is not verified", path)


def _hash(content: bytes = b"") -> Any:
    import xxhash  # where the workflow is only planned, it need not be installed

    return xxhash.xxh3_128(content)


def _digest(stream: BinaryIO, place: int) -> bytes:
    """The digits of a file whose own digits are at `place`."""
    hashed, done = _hash(), 0
    stream.seek(0)
    while chunk := stream.read(min(_CHUNK, place - done) if done < place else _CHUNK):
        done += len(chunk)
        hashed.update(chunk)
        if done == place:
            hashed.update(_ZEROS[: len(stream.read(len(_ZEROS)))])
            done += len(_ZEROS)
    return hashed.hexdigest().encode()


def _place(stream: BinaryIO) -> int | None:
    """Return where the digits begin: in the header of safetensors, at the end of all other files."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    begin = stream.read(9)
    header = int.from_bytes(begin[:8], "little")
    if begin[8:] == b"{" and header <= size - 8:
        stream.seek(8)
        found = stream.read(header).rfind(_MARK)
        return None if found < 0 else 8 + found + len(_MARK)
    for width in dict.fromkeys((min(_TAIL, size), size)):
        stream.seek(size - width)
        found = stream.read(width).rfind(_MARK)
        if found >= 0:
            return size - width + found + len(_MARK)
    return None
