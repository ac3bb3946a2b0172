#!/usr/bin/env bash
# jaxtyping 0.3.11 with beartype 0.23.1 and numpy 2.4.6.
# Guess: `Int[np.ndarray, " n"]` takes arrays of whole numbers of any kind, as `Float` takes any floating number.
# Seen: it takes signed ones alone. An array of uint8 fails the check; `Integer` takes both. While annotations are not
#   executed, nothing tells.
# Remedy: import `Integer` where arrays may be unsigned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from beartype import beartype
from jaxtyping import Float, Int, Integer, TypeCheckError, jaxtyped


@jaxtyped(typechecker=beartype)
def count(classes: Int[np.ndarray, " n"]) -> int:
    return len(classes)


signed, unsigned = np.zeros(3, np.int8), np.zeros(3, np.uint8)
assert count(signed) == 3
assert isinstance(np.zeros(3, np.float16), Float[np.ndarray, " n"])
assert isinstance(signed, Integer[np.ndarray, " n"]) and isinstance(unsigned, Integer[np.ndarray, " n"])
try:
    count(unsigned)
except TypeCheckError as error:
    print("refused:", str(error).splitlines()[0])
else:
    raise AssertionError("Int takes unsigned arrays now")
PYTHON
# Output: refused: Type-check error whilst checking the parameters of __main__.count.
echo "as found: Int is signed alone"
