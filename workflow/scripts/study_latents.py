from pathlib import Path

from atlas.job import job
from atlas.studies.latents import write_health_table, write_latents_table

with job(snakemake.log[0]):
    saes, study = snakemake.params.saes, snakemake.wildcards.study
    tables = dict(zip(saes, map(Path, snakemake.input.tables), strict=True))
    summaries = dict(zip(saes, map(Path, snakemake.input.summaries), strict=True))
    write_latents_table(study, tables, snakemake.params.corpora, Path(snakemake.output.latents))
    write_health_table(study, summaries, snakemake.params.corpora, Path(snakemake.output.health))
