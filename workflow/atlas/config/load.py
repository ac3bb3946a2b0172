"""Reading and checking configuration, with errors for people."""

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


def load_config(raw: Mapping[str, Any], files: Sequence[str | Path] = ()) -> AtlasConfig:
    """Validate a merged configuration, and every row of every study.

    `files` are the files it was read from, named in errors. Raises ConfigError that lists every fault with
    its key, the value found and what was expected.
    """
    origin = ", ".join(str(file) for file in files) or "configuration"
    try:
        config = AtlasConfig.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(f"  {_describe(fault)}" for fault in error.errors())
        raise ConfigError(f"{origin}: {error.error_count()} fault(s)\n{faults}") from None
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


def _describe(fault: Any) -> str:
    # Union tags ("package", "hub", …) are no keys of the file; the tag is the branch that was tried.
    place = ".".join(
        str(part)
        for part in fault["loc"]
        if part not in ("package", "package_parts", "hub", "path") or fault["loc"][-1] == part
    )
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key"
    if fault["type"] == "missing":
        return f"{place}: required key is missing"
    shown = "" if isinstance(fault["input"], dict | list) else f" {fault['input']!r}"
    return f"{place}:{shown} {message}".rstrip()
