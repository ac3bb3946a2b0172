"""Snakemake in a fork that has its libraries; the first argument is what it takes for Python."""

import sys

from snakemake.cli import main

if __name__ == "__main__":
    sys.executable = sys.argv.pop(1)
    sys.exit(main())
