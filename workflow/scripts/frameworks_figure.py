from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.frameworks import draw_frameworks

    draw_frameworks(Path(snakemake.input.table), [Path(path) for path in snakemake.output])
