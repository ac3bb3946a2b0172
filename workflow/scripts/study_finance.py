from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.studies.finance import write_finance_table

    saes = snakemake.params.saes
    write_finance_table(
        snakemake.wildcards.study,
        dict(zip(saes, map(Path, snakemake.input.results), strict=True)),
        dict(zip(saes, map(Path, snakemake.input.draws), strict=True)),
        snakemake.params.baselines,
        Path(snakemake.output.table),
    )
