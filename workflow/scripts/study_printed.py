from pathlib import Path

from atlas.job import job
from atlas.studies.printed import print_study

with job(snakemake.log[0]):
    print_study(Path(snakemake.input.table), Path(snakemake.output.markdown), Path(snakemake.output.latex))
