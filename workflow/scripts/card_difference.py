from pathlib import Path

from atlas.job import job
from atlas.studies.cards import write_difference

with job(snakemake.log[0]):
    write_difference(
        list(zip(snakemake.params.saes, map(Path, snakemake.input.cards), strict=True)), Path(snakemake.output.page)
    )
