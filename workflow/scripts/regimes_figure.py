from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.config.study import Taxonomy
    from atlas.figures.regimes import draw_regimes

    targets = [Path(path) for path in snakemake.output]
    draw_regimes(Path(snakemake.input.table), Taxonomy(**snakemake.params.taxonomy), targets)
