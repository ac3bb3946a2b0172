"""Reading and checking configuration, with errors for people."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atlas.config.finance_rows import check_finance
from atlas.config.framework_rows import expand_frameworks
from atlas.config.rows import expand_rows
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError

# What pydantic adds to the place of a fault for a type that it tried: no key of the file.
_TYPE = re.compile(r"constrained-str|str|int|float|bool|(tuple|list|dict)\[.*\]")


def load_config(raw: Mapping[str, Any], files: Sequence[str | Path] = ()) -> AtlasConfig:
    """Validate a merged configuration, and every row of every study.

    `files` are the files it was read from, named in errors. Raises ConfigError that lists every fault with
    its key, the value found and what was expected.
    """
    origin = ", ".join(str(file) for file in files) or "configuration"
    try:
        config = AtlasConfig.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {_describe(fault)}" for fault in _first_faults(error.errors())]
        raise ConfigError("\n".join([f"{origin}: {len(faults)} fault(s)", *faults])) from None
    try:
        expand_rows(config)
        expand_frameworks(config)
        check_finance(config)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return config


def read_config(*files: Path | str) -> AtlasConfig:
    """Read YAML files, later ones over earlier ones, as Snakemake's --configfile does."""
    merged: dict[str, Any] = {}
    for file in files:
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{file}: not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: expected sections (models, corpora, ...), found {type(content).__name__}")
        _merge(merged, content)
    return load_config(merged, files)


def _merge(into: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _first_faults(faults: Sequence[Any]) -> list[Any]:
    """Faults without what only follows from another one.

    A list whose entries are faulty counts as too short. A value of which several types are tried has a fault for each.
    """
    kept: dict[tuple[int | str, ...], Any] = {}
    for fault in faults:
        place = fault["loc"]
        inside = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in faults)
        if fault["type"] == "too_short" and inside:
            continue
        while place and _TYPE.fullmatch(str(place[-1])):
            place = place[:-1]
        if place in kept:
            message = f"{kept[place]['msg']}, or {fault['msg'].removeprefix('Input should be ')}"
            kept[place] = kept[place] | {"msg": message}
        else:
            kept[place] = fault | {"loc": place}
    return list(kept.values())


def _describe(fault: Any) -> str:
    # Union tags ("package", "hub") are no keys of the file; the tag is the branch that was tried.
    parts = list(map(str, fault["loc"]))
    tags = {number for number, part in enumerate(parts) if part in ("package", "hub", "path") and "source" in parts}
    place = ".".join(part for number, part in enumerate(parts) if number not in tags or parts[number - 1] != "source")
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key"
    if fault["type"] == "missing":
        return f"{place}: required key is missing"
    shown = "" if isinstance(fault["input"], dict | list) else f" {fault['input']!r}"
    return f"{place}:{shown} {message}".rstrip()
