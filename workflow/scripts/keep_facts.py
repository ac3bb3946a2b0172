from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads):
    from atlas.activations.facts import write_facts
    from atlas.activations.store import Shard

    shard = Shard.open(Path(snakemake.input.shard))
    write_facts(shard, snakemake.params.statistics_shards, Path(snakemake.output.facts))
