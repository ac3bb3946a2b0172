from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.training import draw_training

    draw_training(
        Path(snakemake.input.table),
        dict(zip(snakemake.params.saes, map(Path, snakemake.input.curves), strict=True)),
        [Path(path) for path in snakemake.output],
    )
