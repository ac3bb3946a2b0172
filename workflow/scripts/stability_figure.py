from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.figures.stability import draw_stability

    targets = [Path(path) for path in snakemake.output]
    draw_stability(Path(snakemake.input.stability), Path(snakemake.input.health), targets)
