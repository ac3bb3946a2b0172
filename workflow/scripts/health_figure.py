from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.health import draw_health

    targets = [Path(path) for path in snakemake.output]
    draw_health(Path(snakemake.input.table), Path(snakemake.input.latents), targets)
