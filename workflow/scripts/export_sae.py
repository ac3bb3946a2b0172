from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.export.formats import export_sae

    export_sae(Path(snakemake.input.weights).parent, snakemake.params.format, Path(snakemake.output.identity).parent)
