from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.frameworks.table import RunFiles, write_frameworks_table

    files = [
        RunFiles(*map(Path, paths))
        for paths in zip(snakemake.input.results, snakemake.input.losses, snakemake.input.metrics, strict=True)
    ]
    write_frameworks_table(
        dict(zip(snakemake.params.runs, files, strict=True)), snakemake.params.corpus, Path(snakemake.output.table)
    )
