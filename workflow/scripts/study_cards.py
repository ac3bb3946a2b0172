from pathlib import Path

from atlas.job import job
from atlas.studies.cards import write_cards

with job(snakemake.log[0]):
    write_cards(
        snakemake.wildcards.study,
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.cards), strict=True)),
        Path(snakemake.params.benchmarks),
        Path(snakemake.output.full),
        Path(snakemake.output.public),
    )
