from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.site.index import build_index

    index = Path(snakemake.output.index)
    build_index(snakemake.params.studies, index.parent, index)
