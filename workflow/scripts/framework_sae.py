from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads):
    from atlas.frameworks.run import convert_run

    convert_run(
        Path(snakemake.input.weights).parent,
        [Path(path) for path in snakemake.input.shards],
        model=snakemake.params.model,
        hook=snakemake.params.hook,
        training=[Path(path) for path in snakemake.input.training],
        rows=snakemake.params.rows,
        target=Path(snakemake.output.weights).parent,
    )
