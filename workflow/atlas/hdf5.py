"""HDF5 files of moderate size."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from atlas.files import atomic_path


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
    with atomic_path(target) as temporary:
        temporary.write_bytes(image)


def require_space(path: Path, n_bytes: int) -> None:
    """Raise OSError (ENOSPC) unless the disk of `path` has room, before HDF5 meets its end; a quota is not seen."""
    if shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
