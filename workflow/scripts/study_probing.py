from pathlib import Path

from atlas.job import job
from atlas.studies.probing import write_probing_table

with job(snakemake.log[0]):
    write_probing_table(
        snakemake.wildcards.study,
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.results), strict=True)),
        Path(snakemake.output.table),
    )
