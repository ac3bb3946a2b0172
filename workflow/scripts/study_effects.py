from pathlib import Path

from atlas.job import job
from atlas.studies.effects import write_effects_table

with job(snakemake.log[0]):
    write_effects_table(
        snakemake.wildcards.study,
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.summaries), strict=True)),
        Path(snakemake.output.table),
    )
