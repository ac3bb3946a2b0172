"""File systems without locks: sound files are read, and what needs a lock says why it is missing."""

import errno
import fcntl
import logging
import os

import h5py
import pytest

from atlas import gpu_lease, hdf5, job_lock
from atlas.errors import AtlasError
from atlas.hdf5 import new_hdf5, open_hdf5, open_sealed
from atlas.sources.hub import _exclusive

NUMBERS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.fixture(params=NUMBERS, ids=errno.errorcode.get)
def no_locks(request, monkeypatch):
    """What such a file system answers, to Python and to HDF5 (whose own text this is, of 1.14 and 2.0)."""

    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    opened = h5py.File

    def open_file(path, mode="r", locking=None, **options):
        if locking is not False and options.get("driver") != "core":
            raise OSError(
                f"Unable to synchronously open file (unable to lock file, errno = {request.param}, "
                f"error message = '{os.strerror(request.param)}')"
            )
        return opened(path, mode, locking=locking, **options)

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(h5py, "File", open_file)
    hdf5._say_no_locks.cache_clear()
    return request.param


def test_a_sound_file_is_read_and_the_log_says_how(tmp_path, no_locks, caplog):
    with new_hdf5(tmp_path / "a.h5") as file:
        file["x"] = [1, 2]
    for _ in range(2):
        with open_sealed(tmp_path / "a.h5") as file:
            assert file["x"][:].tolist() == [1, 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path}: no locks on this file system" in said
    assert os.strerror(no_locks) in said


@pytest.mark.parametrize("mode", ["w", "r+"])
def test_files_are_written_too(tmp_path, no_locks, mode):
    with open_hdf5(tmp_path / "a.h5", "w") as file:
        file["x"] = [1]
    with open_hdf5(tmp_path / "a.h5", mode) as file:
        file["y"] = [2]
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["y"][:].tolist() == [2]


def test_the_lock_of_another_process_is_no_missing_lock(tmp_path, monkeypatch):
    def open_file(*_, locking=None, **__):
        assert locking is None
        raise OSError(f"unable to lock file, errno = {errno.EAGAIN}, error message = 'Resource unavailable'")

    monkeypatch.setattr(h5py, "File", open_file)
    with pytest.raises(OSError, match="Resource unavailable"):
        open_hdf5(tmp_path / "a.h5")


def test_gpus_are_not_shared_out_without_locks(tmp_path, no_locks, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("ATLAS_GPU_LOCKS", str(tmp_path))
    with pytest.raises(AtlasError, match=r"has no file locks .*set ATLAS_GPU_LOCKS to a folder on a local disk"):
        gpu_lease.lease(1).__enter__()


def test_revisions_are_resolved_without_locks_and_the_log_says_the_risk(tmp_path, no_locks, caplog):
    with _exclusive(tmp_path / "revisions.lock.yaml"):
        pass
    (said,) = [record.getMessage() for record in caplog.records]
    assert "has no file locks" in said
    assert "give 'revision' as a commit" in said


def test_results_are_claimed_without_locks_and_the_log_says_so(tmp_path, no_locks, caplog):
    caplog.set_level(logging.WARNING)
    job_lock.claim_results(tmp_path)
    assert "a second call on these results would not be noticed" in caplog.text
