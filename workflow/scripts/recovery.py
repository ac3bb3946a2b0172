from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.data import Corpus
    from atlas.planted.run import RecoveryInputs, run_recovery

    run_recovery(
        RecoveryInputs(
            model=Path(snakemake.input.model),
            sae=Path(snakemake.input.weights).parent,
            train_shards=[Path(path) for path in snakemake.input.train_shards],
            shards=[Path(path) for path in snakemake.input.shards],
        ),
        corpora={name: Corpus(**corpus) for name, corpus in snakemake.params.corpora.items()},
        draws=snakemake.params.draws,
        seed=int(snakemake.wildcards.seed),
        device=device,
        target=Path(snakemake.output.recovery),
    )
