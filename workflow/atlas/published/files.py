"""Files of a release: tensors without unpickling, settings with a note of each that was read or assumed."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atlas.errors import DamagedFileError, ReadingError
from atlas.files import read_plain_json, sha256_file

REQUIRED = object()
# Tensors are kept in float32, which holds every value of these formats.
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class Settings:
    """Keys of one file and what the user states; every key that is asked for is remembered.

    A key may be stated where the file lacks it. Stated otherwise than in the file, it is an error.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], stated: "Stated"):
        self.path, self._values, self._stated = path, dict(values), stated
        self.read: dict[str, Any] = {}
        self.assumed: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(
        self,
        key: str,
        default: Any = REQUIRED,
        known: Collection[Any] | None = None,
        kind: type | tuple[type, ...] | None = None,
        why: str = "",
    ) -> Any:
        """The value of a key. Without one, `default` is taken and noted as assumed; `why` is the reason for it.

        Raises ReadingError for a missing key without default, a value that is not `known` or no `kind`, and a value
        that contradicts what is stated.
        """
        told = self._stated.take(key)
        if key in self._values:
            value = self._values[key]
            if told is not None and told != value:
                raise ReadingError(
                    f"{self.path}: {key} is {value!r}, but the configuration states {told!r}: "
                    f"remove {key} there, or correct the file"
                )
        elif told is not None:
            value = told
        elif default is REQUIRED:
            raise ReadingError(
                f"{self.path}: has no key {key}{_expected(known, kind)}; if you know it, state {key} in the "
                "configuration"
            )
        else:
            self.assumed.append(f"{self.path.name}: {key} is missing; taken as {default!r}{why and ' ' + why}")
            return default
        self._check(key, value, known, kind)
        self.read[key] = value
        return value

    def option(self, key: str, default: Any) -> Any:
        """Return what the user states of a choice that files never state.

        The default is the format's own rule, and is not listed as an assumption.
        """
        told = self._stated.take(key)
        if told is None:
            return default
        if default is not None:
            self._check(key, told, None, type(default))
        self.read[key] = told
        return told

    def number(self, key: str) -> float | None:
        """A positive number that only the user can state."""
        return self._stated.number(key)

    def note(self, key: str, default: Any = None) -> Any:
        """Return a key that only describes the SAE; None where it is missing, which is no assumption."""
        value = self._values.get(key, default)
        if key in self._values:
            self.read[key] = value
        return value

    def ignored(self) -> list[str]:
        """List the keys of the file that no reader asked for."""
        return sorted(set(self._values) - set(self.read))

    def _check(self, key: str, value: Any, known: Collection[Any] | None, kind: Any) -> None:
        if known is not None and value not in known:
            raise ReadingError(f"{self.path}: {key} is {value!r}{_expected(known, None)}")
        # A truth value is an int to Python.
        if kind is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise ReadingError(f"{self.path}: {key} is {value!r}{_expected(None, kind)}")


def _expected(known: Collection[Any] | None, kind: Any) -> str:
    if known is not None:
        return ", expected one of " + ", ".join(map(repr, known))
    if kind is None:
        return ""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names: dict[Any, str]
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
    return ", expected " + " or ".join(str(names.get(each, each.__name__)) for each in kinds)


class Stated:
    """Statements of the user about an SAE, by key; a key that no reader asks for is an error."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = {key: value for key, value in values.items() if value is not None}
        self._asked: set[str] = set()

    def take(self, key: str) -> Any:
        """The value, None if it is not stated."""
        self._asked.add(key)
        return self._values.get(key)

    def number(self, key: str, positive: bool = True) -> float | None:
        """A finite number, None if it is not stated."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ReadingError(f"{key} is stated as {value!r}, expected a number")
        if positive and value <= 0:
            raise ReadingError(f"{key} is stated as {value!r}, expected a positive number")
        return float(value)

    def require_all_read(self, format_name: str) -> None:
        """Raise ReadingError for a stated key that means nothing to this SAE."""
        if unread := sorted(set(self._values) - self._asked):
            raise ReadingError(
                f"stated key {unread[0]!r} ({self._values[unread[0]]!r}) means nothing to this SAE of format "
                f"{format_name}; keys that do: {', '.join(sorted(self._asked))}"
            )


class Release:
    """The files of one SAE: a folder, or one file of it. What is opened is remembered for the run card."""

    def __init__(self, place: Path, stated: Mapping[str, Any]):
        self.place = Path(place)
        if not self.place.exists():
            raise ReadingError(f"{self.place}: does not exist; expected the folder or file of a published SAE")
        self.folder = self.place if self.place.is_dir() else self.place.parent
        self.stated = Stated(stated)
        self.settings: list[Settings] = []
        self._opened: list[Path] = []

    def find(self, *names: str) -> Path:
        """The file given, or the one file of the folder that has one of these names (globs).

        Raises ReadingError when none or several have.
        """
        if self.place.is_file():
            return self._open(self.place)
        found = sorted({path for name in names for path in self.folder.glob(name) if path.is_file()})
        if len(found) != 1:
            held = ", ".join(sorted(path.name for path in self.folder.iterdir())[:12]) or "nothing"
            several = f"{len(found)} files, {', '.join(path.name for path in found[:3])}" if found else "none"
            raise ReadingError(
                f"{self.folder}: expected one file {' or '.join(names)}, found {several}; the folder holds {held}"
            )
        return self._open(found[0])

    def beside(self, name: str) -> Path | None:
        """Return the path of a file in the folder, None if it is not there."""
        path = self.folder / name
        return self._open(path) if path.is_file() else None

    def _open(self, path: Path) -> Path:
        if path not in self._opened:
            self._opened.append(path)
        return path

    def json(self, path: Path) -> Settings:
        """The settings of a JSON file."""
        try:
            values = read_plain_json(path)
        except (OSError, DamagedFileError) as error:
            raise ReadingError(str(error)) from error
        return self.mapping(path, values)

    def mapping(self, path: Path, values: Any) -> Settings:
        """Settings that were found otherwise."""
        if not isinstance(values, dict):
            raise ReadingError(f"{path}: holds {type(values).__name__}, expected a mapping of keys to values")
        settings = Settings(path, values, self.stated)
        self.settings.append(settings)
        return settings

    def sha256(self) -> dict[str, str]:
        """SHA-256 of every file that was opened, by its name in the folder."""
        return {path.relative_to(self.folder).as_posix(): sha256_file(path) for path in self._opened}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ReadingError(f"{path}: truncated or not a safetensors file ({error}); get it again") from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Arrays of an npz file; an array of objects, which would be unpickled, is refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReadingError(f"{path}: not an npz file of plain arrays ({error}); nothing is unpickled") from error


def read_torch(path: Path, stream: Any = None) -> Any:
    """Read a torch file by the restricted reader, which makes tensors, containers, numbers and texts alone."""
    try:
        return torch.load(path if stream is None else stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises errors of many kinds for what it does not know
        raise ReadingError(
            f"{path}: not a torch file of tensors alone ({_first_line(error)}); anything else would be run as code, "
            "so it is refused: ask its author for safetensors"
        ) from error


def tensors_of(path: Path, found: Any, where: str = "") -> dict[str, Tensor]:
    """Return `found` as a mapping of names to tensors; raises ReadingError for anything else in it."""
    if not isinstance(found, Mapping):
        raise ReadingError(f"{path}: {where}holds {type(found).__name__}, expected a mapping of names to tensors")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise ReadingError(f"{path}: {where}{name} is a {type(value).__name__}, expected a tensor")
    return dict(found)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def read_json_line(path: Path) -> tuple[dict[str, Any], int]:
    """Read the JSON object in a file's first line; also return the offset at which the rest begins."""
    with path.open("rb") as stream:
        line = stream.readline(1 << 20)
    try:
        return json.loads(line.decode("utf-8")), len(line)
    except ValueError as error:
        raise ReadingError(f"{path}: its first line is not JSON ({error})") from error


def as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Convert a tensor to float32. Wider floats are rounded; anything but floating point numbers is refused."""
    if tensor.dtype not in (*_NARROW, torch.float64):
        raise ReadingError(f"{path}: {name} has the format {tensor.dtype}, expected floating point numbers")
    return tensor.float().contiguous()
