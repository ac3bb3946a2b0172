from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.width import draw_width

    inputs = snakemake.input
    draw_width(Path(inputs.table), Path(inputs.labels), [Path(path) for path in snakemake.output])
