from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.autointerp import draw_autointerp

    draw_autointerp(Path(snakemake.input.table), [Path(path) for path in snakemake.output])
