"""The state of a local source, as a text that changes when its files do: an older date changes it too."""

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# A source of at most this size is read whole; of a larger one the sizes and dates of its files have to do, because
# it is asked for at each call.
READ_BYTES = 64 << 20


@cache
def state_of(path: str) -> str | None:
    """Hash of the names and contents of a file or of all files below a folder; None where nothing is.

    Above READ_BYTES in all, the size and date of each file stand for its content. Hidden files do not count.
    """
    files = dict(_files(Path(path)))
    if not files:
        return None
    by_content = sum(status.st_size for status in files.values()) <= READ_BYTES
    hashed = hashlib.sha256()
    for name, status in sorted(files.items()):
        here = Path(path, name) if name else Path(path)
        said = here.read_bytes() if by_content else f"{status.st_size} {status.st_mtime_ns}".encode()
        for part in (name.encode(errors="surrogateescape"), said):
            hashed.update(len(part).to_bytes(8, "little"))
            hashed.update(part)
    return f"{'content' if by_content else 'sizes and dates'} {hashed.hexdigest()}"


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Names below `path`, of the file itself the empty one, with their status."""
    if path.is_file():
        yield "", path.stat()
        return
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file.relative_to(path).as_posix(), file.stat()
