from pathlib import Path

from atlas.job import job
from atlas.studies.runs import write_runs_table

with job(snakemake.log[0]):
    write_runs_table(
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.cards), strict=True)),
        Path(snakemake.output.table),
    )
