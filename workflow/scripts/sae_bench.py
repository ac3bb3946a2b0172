from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.activations.store import shards_by_corpus
    from atlas.sae_bench.launch import Bench, Results, run_core, run_probes

    bench = Bench(
        model=Path(snakemake.input.model),
        export=Path(snakemake.input.export).parent,
        python=Path(snakemake.input.environment).parent / "bin" / "python",
        threads=snakemake.threads,
        device=device.type,
    )
    results = Results(Path(snakemake.output.theirs), Path(snakemake.output.run))
    params = snakemake.params
    if snakemake.rule == "sae_bench_core":
        (shards,) = shards_by_corpus([Path(path) for path in snakemake.input.shards], {}).values()
        run_core(bench, shards, params.loss_tokens, params.batch_contexts, results)
    else:
        run_probes(bench, params.datasets, params.ks, results)
