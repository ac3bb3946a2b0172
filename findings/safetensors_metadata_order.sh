#!/bin/sh
# safetensors 0.8.0 writes the entries of `metadata` in an order that changes from process to process.
#
# Guess: the same tensors and the same metadata give the same file, since tensors are put into a fixed order.
# Behaviour: with three entries, 20 processes write several different files (6 orders are possible); with one entry, one.
# Seen: 6 different files with three entries, 1 with one.
# Remedy: keep all facts in one entry, as JSON, where files have to be the same to the byte.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$folder/write.py" <<'PYTHON'
import hashlib
import sys

import numpy
from safetensors.numpy import save

entries = {"step": "7", "identity": "a", "history": "b"} if sys.argv[1] == "three" else {"facts": "a"}
print(hashlib.sha256(save({"x": numpy.zeros(4, numpy.float32)}, metadata=entries)).hexdigest())
PYTHON
count() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        "$folder/venv/bin/python" "$folder/write.py" "$1"
    done | sort -u | wc -l
}
three=$(count three) one=$(count one)
echo "different files: $three with three entries, $one with one"
test "$three" -gt 1
test "$one" -eq 1
