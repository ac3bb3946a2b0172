from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.activations.store import shards_by_corpus
    from atlas.sae_bench.ours import run_ours

    (shards,) = shards_by_corpus([Path(path) for path in snakemake.input.shards], {}).values()
    run_ours(
        Path(snakemake.input.weights).parent,
        shards,
        snakemake.wildcards.hook,
        snakemake.params.loss_tokens,
        snakemake.params.batch_contexts,
        Path(snakemake.output.ours),
    )
