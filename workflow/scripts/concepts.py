from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.causal.concepts import run_concepts
    from atlas.config.causal import Concepts
    from atlas.config.downstream import Probing

    files, params = snakemake.input, snakemake.params
    run_concepts(
        model=Path(files.model),
        rows=Path(files.rows),
        weights=Path(files.weights),
        train_shards=[Path(path) for path in files.train_shards],
        shards=[Path(path) for path in files.shards],
        source=[Path(path) for path in files.source],
        embedder=[Path(path) for path in files.embedder],
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        concepts=Concepts(**params.concepts),
        probing=Probing(**params.probing),
        device=device,
        result=Path(snakemake.output.result),
    )
