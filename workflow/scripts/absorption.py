from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.absorption.run import run_absorption
    from atlas.config.downstream import Absorption

    run_absorption(
        Path(snakemake.input.weights).parent,
        Path(snakemake.input.rows),
        Path(snakemake.input.raw),
        [Path(path) for path in snakemake.input.train_shards],
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        settings=Absorption(**snakemake.params.absorption),
        device=device,
        target=Path(snakemake.output.result),
    )
