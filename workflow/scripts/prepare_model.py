from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.data import ModelSpec
    from atlas.models.prepare import prepare_model
    from atlas.sources.hub import LOCK_FILE

    spec = ModelSpec(**snakemake.params.spec)
    wheel = Path(snakemake.input.source[0]) if spec.source.kind == "package" else None
    prepare_model(snakemake.wildcards.model, spec, wheel, Path(snakemake.output.folder), LOCK_FILE)
