"""HDF5 files of moderate size."""

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py

from atlas.errors import DamagedFileError
from atlas.files import sealed_path
from atlas.sealed import AGAIN, UNSEALED, verify

log = logging.getLogger(__name__)


# What systems answer where a file system has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def open_hdf5(path: Path | str, mode: str = "r", **options: Any) -> h5py.File:
    """Open a file; on a file system without locks without HDF5's own, which the log says once for each folder.

    HDF5 refuses a sound file there. Nothing is lost without its lock: files are read when they are whole, and are
    written under a name of their own by a job that has the lock of its output.
    """
    try:
        return h5py.File(path, mode, **options)
    except OSError as error:
        if not _lacks_locks(error):
            raise
        _say_no_locks(str(Path(path).parent), str(error))
        return h5py.File(path, mode, locking=False, **options)


@contextmanager
def open_sealed(path: Path | str, remedy: str = AGAIN) -> Iterator[h5py.File]:
    """A file of `new_hdf5`, whose bytes are verified before HDF5 sees them: damaged ones can crash or hang it.

    What is wrong with it is a DamagedFileError, also later while it is read.
    """
    verify(path, remedy)
    try:
        with open_hdf5(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise DamagedFileError(f"{path}: missing, truncated or altered ({error}); {remedy}") from error


def _lacks_locks(error: OSError) -> bool:
    """Return whether HDF5 could not lock a file because there are no locks; another process' lock is another error."""
    found = re.search(r"unable to lock file, errno = (\d+)", str(error))
    return found is not None and int(found[1]) in _NO_LOCKS


@cache
def _say_no_locks(folder: str, error: str) -> None:
    log.warning("%s: no locks on this file system (%s); HDF5 files are opened without", folder, error)


@contextmanager
def new_hdf5(target: Path) -> Iterator[h5py.File]:
    """A file that is built in memory and then written as a whole: complete or absent, as with `atomic_path`.

    HDF5 that meets a full disk while it closes a file leaves objects that cannot be closed, and the process dies of a
    segmentation fault (seen with 1.14). Raises OSError like any other writing does.
    """
    # libver v110: its object headers carry checksums, so that a flipped bit in an attribute is noticed too.
    with h5py.File(str(target), "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with sealed_path(target) as temporary, temporary.open("wb") as stream:
        stream.write(image)
        stream.write(f"\n{UNSEALED}\n".encode())  # HDF5 does not look behind its end


def require_space(path: Path, n_bytes: int) -> None:
    """Raise OSError (ENOSPC) unless the disk of `path` has room, before HDF5 meets its end; a quota is not seen."""
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
