from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.activations.facts import harvest_facts
    from atlas.config.data import Harvest, window_memory
    from atlas.corpora.tokens import read_tokens
    from atlas.models.gate import require_passed
    from atlas.models.load import load_model

    loaded = load_model(Path(snakemake.input.model), device)
    require_passed(Path(snakemake.input.audit), loaded, snakemake.params.hooks)
    harvest_facts(
        loaded,
        read_tokens(Path(snakemake.input.tokens), "train"),
        int(snakemake.wildcards.shard),
        # Not a param: how much is held in memory must not rerun anything. Snakemake compares params, never its config.
        Harvest(**snakemake.params.harvest, **window_memory(snakemake.config, snakemake.wildcards.model)),
        snakemake.params.hooks,
        Path(snakemake.output.facts),
    )
