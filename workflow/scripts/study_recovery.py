from pathlib import Path

from atlas.job import job
from atlas.studies.recovery import write_recovery

with job(snakemake.log[0]):
    saes = snakemake.params.saes
    write_recovery(
        snakemake.wildcards.study,
        dict(zip(saes, map(Path, snakemake.input.metrics), strict=True)),
        dict(zip(saes, map(Path, snakemake.input.recoveries), strict=True)),
        snakemake.params.corpora,
        Path(snakemake.output.table),
        Path(snakemake.output.verdicts),
    )
