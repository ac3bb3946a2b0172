from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.finance import draw_finance

    files = snakemake.output
    draw_finance(Path(snakemake.input.table), Path(snakemake.input.finance), [Path(files.pdf), Path(files.png)])
