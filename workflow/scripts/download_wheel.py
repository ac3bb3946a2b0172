from pathlib import Path

from atlas.config.sources import PackageSource
from atlas.job import job
from atlas.sources.packages import download_wheel

with job(snakemake.log[0]):
    download_wheel(PackageSource(**snakemake.params.source), Path(snakemake.output.wheel))
