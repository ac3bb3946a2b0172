from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.planted.plant import audit_truth

    audit_truth(Path(snakemake.input.model), snakemake.params.storage_dtype, Path(snakemake.output.audit))
