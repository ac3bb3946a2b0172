from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.data import ModelSpec
    from atlas.planted.truth import write_truth

    write_truth(snakemake.wildcards.model, ModelSpec(**snakemake.params.spec), Path(snakemake.output.folder))
