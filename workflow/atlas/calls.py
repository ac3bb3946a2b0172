"""Call the function that a rule names, with the rule's inputs, outputs, params and wildcards as its parameters.

Values are bound by name and converted by annotation; docs/extending.md says how. A wildcard is used where nothing else
has its name. What a rule gives without a name is for Snakemake alone: files to wait for, values that rerun the job.
"""

import dataclasses
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from atlas.folder import IS_FOLDER
from atlas.gpu_lease import granted_gpus
from atlas.job import job, prepare_torch
from atlas.signatures import BY, DEVICE, THREADS, CallError, Parameter, Signatures

LIBRARY = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Given:
    """Inputs, outputs, params and wildcards of a job's rule, by name."""

    values: Mapping[str, Any]  # inputs, outputs and params
    wildcards: Mapping[str, str]
    threads: int = 1

    def __contains__(self, name: str) -> bool:
        return name in self.values or name in self.wildcards or name == THREADS

    def __getitem__(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        return self.wildcards.get(name, self.threads)


def run_call(call: str, given: Given, log: str | Path, resources: Mapping[str, Any], library: Path = LIBRARY) -> None:
    """Run a job whose rule has the param `call`: a function's name and the hash of its code.

    A GPU is leased if a parameter is a torch.device. Errors are reported as `job` does.
    """
    function = call.split()[0]
    on_device = any(_wants_device(each) for each in Signatures(library).of(function))
    # OpenMP reads it once, when torch is imported.
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with job(log, given.threads, granted_gpus(resources) if on_device else None) as device:
        module, _, name = function.rpartition(".")
        called = getattr(importlib.import_module(module), name)
        if device is None and "torch" in sys.modules:
            device = prepare_torch(given.threads, gpus=0)
        called(**bind(called, given, device))


def _wants_device(parameter: Parameter) -> bool:
    return parameter.annotation == DEVICE or any(map(_wants_device, parameter.fields))


def bind(function: Callable, given: Given, device: Any = None) -> dict[str, Any]:
    """Arguments of a function. Raises CallError, which names the parameter, for what is not given or does not fit."""
    where = f"{function.__module__}.{function.__name__}"
    hints = typing.get_type_hints(function, include_extras=True)
    bound = {}
    for name, required in _required(function).items():
        value = _bound(name, hints[name], given, device, where)
        if value is not _NOTHING:
            bound[name] = value
        elif required:
            raise CallError(f"{where}: nothing is given for its parameter {name}; name an input, output or param so")
    return bound


_NOTHING = object()


def _required(function: Callable) -> dict[str, bool]:
    """Parameters of a function, and whether each must be given."""
    return {
        name: each.default is inspect.Parameter.empty for name, each in inspect.signature(function).parameters.items()
    }


def _bound(name: str, hint: Any, given: Given, device: Any, where: str) -> Any:
    """Value of a parameter or field; _NOTHING if the rule has none for it."""
    if _is_device(hint):
        return device
    values = _values_of(hint)
    if values is not None and name + BY in given:
        keys = list(given[name + BY])
        if isinstance(values, type) and dataclasses.is_dataclass(values):
            return _rows(name, values, keys, given, where)
        return dict(zip(keys, _converted(given[name], list[values], f"{where}: {name}", len(keys)), strict=True))
    if name in given:
        return _converted(given[name], hint, f"{where}: {name}")
    plain = _without_none(hint)
    if not isinstance(plain, type) or not dataclasses.is_dataclass(plain):
        return _NOTHING
    parts = {}
    for field, field_hint, required in _fields_of(plain):
        value = _bound(field, field_hint, given, device, where)
        if value is not _NOTHING:
            parts[field] = value
        elif required:
            return _NOTHING
    return plain(**parts)


def _rows(name: str, kind: type, keys: list, given: Given, where: str) -> dict[Any, Any]:
    """One dataclass for each key, from lists of which each has the values of one field."""
    columns = {
        field: _converted(given[field], list[hint], f"{where}: {name}.{field}", len(keys))
        for field, hint, required in _fields_of(kind)
        if required or field in given
    }
    return {key: kind(**{field: column[row] for field, column in columns.items()}) for row, key in enumerate(keys)}


def _fields_of(kind: type) -> list[tuple[str, Any, bool]]:
    """Fields of a dataclass: name, type, and whether it must be given."""
    hints = typing.get_type_hints(kind, include_extras=True)
    missing = dataclasses.MISSING
    return [
        (field.name, hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    ]


def _converted(value: Any, hint: Any, where: str, length: int | None = None) -> Any:
    """A value of a rule as its annotation says. Raises CallError if it is none."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Annotated:
        return _folder(value, where) if IS_FOLDER in parts[1:] else _converted(value, parts[0], where)
    if kind in (typing.Union, types.UnionType):
        if value is None or (_is_list(value) and not value):
            return None if type(None) in parts else _refuse(value, hint, where)
        plain = _without_none(hint)
        return value if typing.get_origin(plain) in (typing.Union, types.UnionType) else _converted(value, plain, where)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            _refuse(value, hint, where)
        return {key: _converted(each, parts[1], f"{where}[{key!r}]") for key, each in value.items()}
    if isinstance(kind, type) and issubclass(kind, Sequence):
        items = list(value) if _is_list(value) else [value]
        if length is not None and len(items) != length:
            raise CallError(f"{where}: {len(items)} values for {length} keys; the rule must list one for each")
        found = [_converted(each, parts[0], f"{where}[{place}]") for place, each in enumerate(items)]
        return tuple(found) if kind is tuple else found
    return _plain(value, hint, where)


def _plain(value: Any, hint: Any, where: str) -> Any:
    """A value whose type is no container."""
    if hint is Path:
        if _is_list(value) and len(value) == 1:
            value = value[0]
        return Path(value) if isinstance(value, str | Path) else _refuse(value, hint, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return hint(
            **{
                name: _converted(value[name], each, f"{where}.{name}")
                for name, each, _ in _fields_of(hint)
                if name in value
            }
        )
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel) and isinstance(value, Mapping):
        return hint(**value)
    if hint in (int, float) and isinstance(value, str):
        try:
            return hint(value)
        except ValueError:
            _refuse(value, hint, where)
    if hint in (int, float, str, bool):
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        if not fits and not (hint is float and isinstance(value, int)):
            _refuse(value, hint, where)
        return str(value) if hint is str else value  # Snakemake's strings are of a class of their own
    return value


def _folder(value: Any, where: str) -> Path:
    folders = {Path(path).parent for path in (value if _is_list(value) else [value])}
    if len(folders) != 1:
        raise CallError(f"{where}: files of {len(folders)} folders; expected files of one")
    return folders.pop()


def _is_device(hint: Any) -> bool:
    return getattr(hint, "__name__", None) == "device" and getattr(hint, "__module__", None) == "torch"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if len(parts) == 1 else hint


def _values_of(hint: Any) -> Any:
    """Type of the values of a mapping; None for anything else."""
    kind = typing.get_origin(hint)
    return typing.get_args(hint)[1] if isinstance(kind, type) and issubclass(kind, Mapping) else None


def _refuse(value: Any, hint: Any, where: str):
    name = getattr(hint, "__name__", hint) if not typing.get_args(hint) else hint
    raise CallError(f"{where} is {value!r}, expected {name}; correct what the rule gives, or the annotation")
