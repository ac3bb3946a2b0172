from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.study import draw_study

    draw_study(Path(snakemake.input.table), [Path(path) for path in snakemake.output])
