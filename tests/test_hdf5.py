"""HDF5 files that are written in reserved space."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from atlas import hdf5
from atlas.errors import DamagedFileError
from atlas.hdf5 import mapped, open_sealed, reserved_hdf5

SHAPES = {"a/rows": ((1000, 16), np.dtype(np.float32)), "b/c/flags": ((7,), np.dtype(np.bool_))}
ROWS = np.arange(16_000, dtype=np.float32).reshape(1000, 16)
FLAGS = np.array([True, False, False, True, True, False, True])


def write(target: Path) -> None:
    with reserved_hdf5(target, SHAPES) as file:
        for first in range(0, 1000, 300):
            file["a/rows"][first : first + 300] = ROWS[first : first + 300]
        file["b/c/flags"][...] = FLAGS
        file["a"].attrs["name"] = "late " * 1000
        file.attrs["length"] = 16


def test_values_and_attributes_come_back_and_damage_is_found(tmp_path):
    write(tmp_path / "x.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    with open_sealed(tmp_path / "x.h5") as file:
        rows, flags = mapped(file["a/rows"]), mapped(file["b/c/flags"])
        assert file["a"].attrs["name"] == "late " * 1000
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(flags, FLAGS)
    assert flags.dtype == np.bool_
    assert not rows.flags.writeable
    content = bytearray((tmp_path / "x.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(DamagedFileError, match="altered"), open_sealed(tmp_path / "x.h5"):
        pass


def test_what_is_reserved_and_not_used_is_given_back(tmp_path):
    write(tmp_path / "x.h5")
    assert (tmp_path / "x.h5").stat().st_size < ROWS.nbytes + FLAGS.nbytes + hdf5._ATTRIBUTES


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), reserved_hdf5(tmp_path / "x.h5", SHAPES) as file:
        file["a/rows"][:10] = 1.0
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_before_hdf5_meets_it(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    huge = {"rows": ((1 << 50, 1), np.dtype(np.uint8))}
    with pytest.raises(OSError, match="No space left"), reserved_hdf5(tmp_path / "x.h5", huge):
        pass
    monkeypatch.setattr(os, "posix_fallocate", full)  # a quota, of which the free space says nothing
    with pytest.raises(OSError, match="No space left"), reserved_hdf5(tmp_path / "x.h5", SHAPES):
        pass
    assert not list(tmp_path.iterdir())


def test_other_datasets_are_read_whole(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        chunked = file.create_dataset("rows", data=ROWS, chunks=(100, 16))
        np.testing.assert_array_equal(mapped(chunked), ROWS)
        assert mapped(file.create_dataset("none", shape=(0, 3), dtype=np.float32)).shape == (0, 3)
