"""HDF5 files that are complete or absent: small ones built in memory, large ones written in reserved space."""

import errno
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from atlas.errors import DamagedFileError
from atlas.files import sealed_path
from atlas.sealed import AGAIN, UNSEALED, verify

log = logging.getLogger(__name__)

# libver: object headers of this version carry checksums, so that a flipped bit in an attribute is noticed too.
LIBVER = ("v110", "v110")
# Bytes that are reserved for attributes, which are written last.
_ATTRIBUTES = 1 << 16

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
    with h5py.File(str(target), "w", driver="core", backing_store=False, libver=LIBVER) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with sealed_path(target) as temporary, temporary.open("wb") as stream:
        stream.write(image)
        stream.write(f"\n{UNSEALED}\n".encode())  # HDF5 does not look behind its end


@contextmanager
def reserved_hdf5(target: Path, datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Iterator[h5py.File]:
    """A file for more than memory holds, written block by block, then published as `new_hdf5` does.

    It has the contiguous `datasets` (path → shape and dtype), without values yet. Their space is reserved before the
    first value, because HDF5 dies on a full disk; raises OSError where there is no room.
    """
    n_bytes = _ATTRIBUTES + sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in datasets.values())
    with sealed_path(target) as temporary:
        require_space(temporary, n_bytes)
        with open_hdf5(temporary, "w", libver=LIBVER) as file:
            for name, (shape, kind) in datasets.items():
                parent, _, own = name.rpartition("/")
                allocate(file.require_group(parent or "/"), own, shape, kind)
        reserve(temporary, n_bytes)
        with open_hdf5(temporary, "r+", libver=LIBVER) as file:
            yield file
        with temporary.open("ab") as stream:
            stream.write(f"\n{UNSEALED}\n".encode())


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], kind: Any) -> None:
    """Create a contiguous dataset whose place in the file is fixed now, and which is not filled with zeros."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space, stored = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(kind), logical=True)
    h5py.h5d.create(group.id, name.encode(), stored, space, properties)


def reserve(path: Path, n_bytes: int = 0) -> None:
    """Take the disk space of a file, and of what will be written behind its end up to `n_bytes`."""
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(n_bytes, path.stat().st_size))


def mapped(dataset: h5py.Dataset) -> np.ndarray:
    """Values of a contiguous dataset, read from disk where they are looked at; those of another one, read now.

    The caller has verified the file: a memory map answers a file that was cut since then with a bus error.
    """
    offset = dataset.id.get_offset()
    if offset is None or not dataset.size:
        return dataset[...]
    return np.memmap(dataset.file.filename, dataset.dtype, "r", offset, dataset.shape)


def require_space(path: Path, n_bytes: int) -> None:
    """Raise OSError (ENOSPC) unless the disk of `path` has room, before HDF5 meets its end; a quota is not seen."""
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
