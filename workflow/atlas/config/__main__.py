"""Checks configuration files without Snakemake: ``PYTHONPATH=workflow python -m atlas.config FILE [FILE ...]``.

Later files are laid over earlier ones, as --configfile does. Snakemake's own error for a file that is not YAML names
neither the file nor the line; this one does.
"""

import sys

from atlas.config.load import read_config
from atlas.config.rows import expand_rows
from atlas.errors import ConfigError


def main(files: list[str]) -> int:
    """Print what is wrong, or how much the files describe; returns the exit status."""
    if not files:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        config = read_config(*files)
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 1
    saes = {row.sae_id for rows in expand_rows(config).values() for row in rows}
    print(f"{', '.join(files)}: {len(config.studies)} studies, {len(saes)} SAEs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
