#!/usr/bin/env bash
# HDF5 2.0.0 (h5py 3.16.0) converts float32 to a 16-bit floating-point type of 8 exponent and 7 mantissa bits.
# Guess: it rounds as IEEE 754 and every bfloat16 conversion in hardware do, ties to even.
# Behaviour: it rounds ties away from zero. 1 + 2^-8 lies between 1 and 1 + 2^-7; even is 1, HDF5 writes 1 + 2^-7.
# Output seen:
#   HDF5 2.0.0: 1.00390625 -> 1.0078125, 1.01171875 -> 1.015625, -1.00390625 -> -1.0078125
# h5py shows the dataset as float32: NumPy has no type for it, so nothing says that 16 bits are stored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h5py==3.16.0 numpy==2.4.2
"$folder/venv/bin/python" - "$folder/file.h5" <<'PYTHON'
import sys

import h5py
import numpy as np

kind = h5py.h5t.IEEE_F32LE.copy()
kind.set_fields(15, 7, 8, 0, 7)  # sign at 15, exponent at 7 of 8 bits, mantissa at 0 of 7 bits
kind.set_size(2)
kind.set_ebias(127)
ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)], np.float32)
with h5py.File(sys.argv[1], "w") as file:
    data = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple(ties.shape))
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, ties)
    found = np.empty_like(ties)
    data.read(h5py.h5s.ALL, h5py.h5s.ALL, found)
    assert data.get_type().get_size() == 2
    assert file["x"].dtype == np.float32, file["x"].dtype
print(f"HDF5 {h5py.version.hdf5_version}: " + ", ".join(f"{a} -> {b}" for a, b in zip(ties, found)))
assert h5py.version.hdf5_version == "2.0.0"
assert found.tolist() == [1 + 2**-7, 1 + 2**-6, -(1 + 2**-7)], found.tolist()
PYTHON
