from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.corpora.tokens import read_tokens
    from atlas.models.gate import audit_on_text
    from atlas.models.load import load_model

    text = read_tokens(Path(snakemake.input.tokens), "train")
    audit_on_text(
        load_model(Path(snakemake.input.model), device),
        text.tokens,
        text.counted,
        snakemake.params.hooks,
        snakemake.params.storage_dtype,
        Path(snakemake.output.audit),
    )
