from pathlib import Path

from atlas.export.environments import build_environment
from atlas.job import job

with job(snakemake.log[0]):
    build_environment(snakemake.wildcards.peer, Path(snakemake.input.requirements), Path(snakemake.output.ready).parent)
