from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads):
    from atlas.absorption.run import run_raw_absorption
    from atlas.config.downstream import Absorption

    run_raw_absorption(
        Path(snakemake.input.rows),
        [Path(path) for path in snakemake.input.train_shards],
        hook=snakemake.wildcards.hook,
        settings=Absorption(**snakemake.params.absorption),
        target=Path(snakemake.output.result),
    )
