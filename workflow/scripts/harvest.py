from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.activations.harvest import harvest_shard
    from atlas.config.data import Harvest
    from atlas.corpora.tokens import read_tokens
    from atlas.models.gate import require_passed
    from atlas.models.load import load_model

    loaded = load_model(Path(snakemake.input.model), device)
    require_passed(Path(snakemake.input.audit), loaded, snakemake.params.hooks)
    harvest_shard(
        loaded,
        read_tokens(Path(snakemake.input.tokens), snakemake.wildcards.split),
        int(snakemake.wildcards.shard),
        Harvest(**snakemake.params.harvest),
        snakemake.params.hooks,
        Path(snakemake.output.shard),
    )
