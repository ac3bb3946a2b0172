from pathlib import Path

from atlas.job import job
from atlas.studies.regimes import write_regimes

with job(snakemake.log[0]):
    write_regimes(
        snakemake.wildcards.study,
        snakemake.params.rows,
        [Path(path) for path in snakemake.input.metrics],
        [Path(path) for path in snakemake.input.regimes],
        Path(snakemake.output.table),
        Path(snakemake.output.confusion),
    )
