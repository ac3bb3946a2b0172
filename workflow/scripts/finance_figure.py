from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.finance import draw_finance

    draw_finance(Path(snakemake.input.table), Path(snakemake.input.finance), [Path(path) for path in snakemake.output])
