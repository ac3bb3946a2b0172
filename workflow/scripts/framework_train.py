from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.data import Mix
    from atlas.config.recipe import Recipe
    from atlas.frameworks.run import train_run

    train_run(
        snakemake.params.framework,
        [Path(path) for path in snakemake.input.shards],
        hook=snakemake.params.hook,
        mix=Mix(**snakemake.params.mix),
        recipe=Recipe(**snakemake.params.recipe),
        seed=int(snakemake.wildcards.seed),
        options=snakemake.params.options,
        environments=Path(snakemake.params.environments),
        threads=snakemake.threads,
        device=device.type,
        folder=Path(snakemake.output.weights).parent,
    )
