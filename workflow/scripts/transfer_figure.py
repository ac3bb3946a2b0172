from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.transfer import draw_transfer

    files = snakemake.output
    draw_transfer(Path(snakemake.input.table), [Path(files.pdf), Path(files.png)])
