from pathlib import Path

from atlas.job import job
from atlas.studies.table import write_study_table

with job(snakemake.log[0]):
    write_study_table(
        snakemake.wildcards.study,
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.metrics), strict=True)),
        snakemake.params.corpora,
        snakemake.params.published,
        Path(snakemake.output.table),
        dict(zip(snakemake.params.twinned, map(Path, snakemake.input.comparisons), strict=True)),
        snakemake.params.kinds,
    )
