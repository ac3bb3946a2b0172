from pathlib import Path

from atlas.job import job
from atlas.studies.transfer import write_transfer_table

with job(snakemake.log[0]):
    write_transfer_table(
        snakemake.wildcards.study,
        snakemake.params.rows,
        [Path(path) for path in snakemake.input.results],
        Path(snakemake.output.table),
    )
