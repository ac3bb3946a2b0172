from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.get("gpu", 0)) as device:
    from atlas.corpora.tokens import read_tokens
    from atlas.models.audit import audit_on_tokens
    from atlas.models.load import load_model

    audit_on_tokens(
        load_model(Path(snakemake.input.model), device),
        read_tokens(Path(snakemake.input.tokens), "train"),
        snakemake.params.hooks,
        snakemake.params.storage_dtype,
        Path(snakemake.output.audit),
    )
