"""Files of results that say of which SAE they are: one copied to another's place is refused."""

from pathlib import Path
from typing import Any

from atlas.errors import EvaluationError
from atlas.files import read_json


def read_of_sae(path: Path, sae_id: str) -> dict[str, Any]:
    """Read a result of an SAE; raises EvaluationError when its `sae_id` is another one."""
    found = read_json(path)
    require_sae(path, found["sae_id"], sae_id)
    return found


def require_sae(path: Path, found: str, expected: str) -> None:
    """Raises EvaluationError if the file `path` says that it is of another SAE."""
    if found != expected:
        raise EvaluationError(f"{path}: is of SAE {found!r}, expected {expected!r}; delete it and run again")
