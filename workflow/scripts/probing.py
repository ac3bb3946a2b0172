from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.downstream import Probing
    from atlas.probing.run import run_probing

    run_probing(
        Path(snakemake.input.weights).parent,
        Path(snakemake.input.rows),
        [Path(path) for path in snakemake.input.train_shards],
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        settings=Probing(**snakemake.params.probing),
        device=device,
        target=Path(snakemake.output.result),
    )
