"""The configuration: typed sections, studies expanded to rows, errors that name file, row, key and value."""

from atlas.config.load import load_config, read_config
from atlas.config.rows import SaeRow, expand_rows
from atlas.config.sections import AtlasConfig

__all__ = ["AtlasConfig", "SaeRow", "expand_rows", "load_config", "read_config"]
