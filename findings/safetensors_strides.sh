#!/usr/bin/env bash
# safetensors 0.8.0 (safetensors.numpy) with numpy 2.3.5.
# Guess: `save_file` writes the values that an array has, or refuses an array that is not C-contiguous.
# Seen: it writes the bytes of the underlying buffer in the order of memory, with the shape of the view. A transposed
#   array comes back as other numbers of the same shape, without an error.
# Remedy: np.ascontiguousarray before saving.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from safetensors.numpy import load_file, save_file

wanted = np.arange(6, dtype=np.float32).reshape(2, 3).T  # [[0, 3], [1, 4], [2, 5]]
save_file({"view": wanted, "copy": np.ascontiguousarray(wanted)}, "file.safetensors")
found = load_file("file.safetensors")
print("wanted", wanted.tolist(), "view", found["view"].tolist(), "copy", found["copy"].tolist())
assert np.array_equal(found["copy"], wanted)
assert found["view"].shape == wanted.shape
assert found["view"].tolist() == [[0, 1], [2, 3], [4, 5]], "the file now holds the values of the view"
PYTHON
# Output: wanted [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] view [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]] copy [[0.0, 3.0], …
echo "as found: a transposed array is saved as other numbers"
