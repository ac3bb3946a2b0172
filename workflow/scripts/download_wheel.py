from pathlib import Path

from atlas.config.sources import Wheel
from atlas.job import job
from atlas.sources.packages import download_wheel

with job(snakemake.log[0]):
    download_wheel(Wheel(**snakemake.params.source), Path(snakemake.output.wheel))
