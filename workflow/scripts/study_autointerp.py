from pathlib import Path

from atlas.job import job
from atlas.studies.autointerp import SaeFiles, write_autointerp_table

with job(snakemake.log[0]):
    files = snakemake.input
    parts = zip(map(Path, files.summaries), map(Path, files.latents), map(Path, files.metrics), strict=True)
    saes = {sae: SaeFiles(*own) for sae, own in zip(snakemake.params.saes, parts, strict=True)}
    write_autointerp_table(snakemake.wildcards.study, saes, snakemake.params.corpus, Path(snakemake.output.table))
