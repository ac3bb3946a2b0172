from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.transfer import draw_transfer

    draw_transfer(Path(snakemake.input.table), [Path(path) for path in snakemake.output])
