from pathlib import Path

from atlas.job import job
from atlas.studies.autointerp import SaeFiles, write_autointerp_table

with job(snakemake.log[0]):
    files = snakemake.input
    corpora = snakemake.params.corpora
    parts = zip(map(Path, files.summaries), map(Path, files.latents), map(Path, files.metrics), strict=True)
    saes = {sae: SaeFiles(*own, corpora[sae]) for sae, own in zip(corpora, parts, strict=True)}
    write_autointerp_table(snakemake.wildcards.study, saes, Path(snakemake.output.table))
