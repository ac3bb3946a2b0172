from pathlib import Path

from atlas.job import job
from atlas.studies.absorption import write_absorption_table

with job(snakemake.log[0]):
    write_absorption_table(
        snakemake.wildcards.study,
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.results), strict=True)),
        Path(snakemake.output.table),
    )
