"""Tensors in one safetensors file that verifies itself, with facts about them as JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atlas.errors import DamagedFileError
from atlas.files import sealed_path
from atlas.sealed import AGAIN, KEY, UNSEALED, verify

_FACTS = "facts"


def write_tensors(target: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts atomically; the same give the same bytes.

    Facts and checksum are one entry of the metadata: safetensors 0.8 writes several in an order that changes from run
    to run.
    """
    described = json.dumps({**facts, KEY: UNSEALED}, ensure_ascii=False, allow_nan=False)
    with sealed_path(target) as temporary:
        save_file(dict(tensors), temporary, metadata={_FACTS: described})


@contextmanager
def open_tensors(path: Path, remedy: str = AGAIN) -> Iterator[Any]:
    """The file, verified, to read tensors from (`get_tensor`); what is wrong with it is a DamagedFileError."""
    verify(path, remedy)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(f"{path}: truncated or altered ({error}); {remedy}") from error


def facts_of(file: Any, path: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """The facts in an opened file; raises DamagedFileError when it has none."""
    try:
        facts = json.loads(file.metadata()[_FACTS])
        return {key: value for key, value in facts.items() if key != KEY}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{path}: has no facts about its tensors ({error!r}); {remedy}") from error
