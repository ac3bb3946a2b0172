from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.get("gpu", 0)) as device:
    from atlas.activations.harvest import harvest_shard
    from atlas.config.data import Harvest
    from atlas.corpora.tokens import read_tokens
    from atlas.models.audit import require_passed
    from atlas.models.load import load_model

    hooks = snakemake.params.hooks
    require_passed(Path(snakemake.input.audit), hooks)
    harvest_shard(
        load_model(Path(snakemake.input.model), device),
        read_tokens(Path(snakemake.input.tokens), snakemake.wildcards.split),
        int(snakemake.wildcards.shard),
        Harvest(**snakemake.params.harvest),
        hooks,
        Path(snakemake.output.shard),
    )
