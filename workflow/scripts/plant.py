from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.data import Corpus, Harvest
    from atlas.planted.plant import plant_shard

    plant_shard(
        Path(snakemake.input.model),
        Corpus(**snakemake.params.corpus),
        snakemake.wildcards.corpus,
        snakemake.wildcards.split,
        int(snakemake.wildcards.shard),
        Harvest(**snakemake.params.harvest),
        Path(snakemake.output.shard),
    )
