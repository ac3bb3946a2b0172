"""Reading and checking configuration, with errors for people."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlas.config.faults import describe
from atlas.config.finance_rows import check_finance
from atlas.config.framework_rows import expand_frameworks
from atlas.config.layers import merge, replace_whole
from atlas.config.rows import expand_rows
from atlas.config.sections import AtlasConfig
from atlas.config.streams import check_streams
from atlas.config.twins import expand_twins
from atlas.errors import ConfigError
from atlas.yaml_files import read_yaml

# What pydantic adds to the place of a fault for a type that it tried: no key of the file.
_TYPE = re.compile(r"constrained-str|str|int|float|bool|(tuple|list|dict)\[.*\]")


def load_config(raw: Mapping[str, Any], files: Mapping[str, Any] | Sequence[str | Path] = ()) -> AtlasConfig:
    """Validate a merged configuration, and every row of every study.

    `files` are the files it was read from, or their names with their contents; errors name them. Raises ConfigError
    that lists every fault with its key, the value found and what was expected.
    """
    origin = ", ".join(str(file) for file in files) or "configuration"
    try:
        config = AtlasConfig.model_validate(raw)
    except ValidationError as error:
        faults = describe(error.errors(), AtlasConfig, files if isinstance(files, Mapping) else {})
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"{origin}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}\n{listed}") from None
    try:
        check_streams(config, expand_rows(config))
        expand_twins(config)
        expand_frameworks(config)
        check_finance(config)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return config


def read_config(*files: Path | str) -> AtlasConfig:
    """Read YAML files, later ones over earlier ones, as the workflow does with Snakemake's --configfile."""
    layers = {}
    for file in files:
        layers[str(file)] = read_yaml(file)
        if not isinstance(layers[str(file)], dict):
            found = type(layers[str(file)]).__name__
            raise ConfigError(f"{file}: expected sections (models, corpora, ...), found {found}")
    return load_config(replace_whole(merge(list(layers.values())), list(layers.values()))[0], layers)
