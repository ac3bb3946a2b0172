from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.shifts import Regimes
    from atlas.config.study import Taxonomy
    from atlas.regimes.run import RegimeInputs, run_regime

    run_regime(
        RegimeInputs(
            sae=Path(snakemake.input.weights).parent,
            metrics=Path(snakemake.input.metrics),
            train_shards=[Path(path) for path in snakemake.input.train_shards],
        ),
        hook=snakemake.params.hook,
        scale=snakemake.params.scale,
        corpus=snakemake.params.corpus,
        settings=Regimes(**snakemake.params.regimes),
        taxonomy=Taxonomy(**snakemake.params.taxonomy),
        device=device,
        target=Path(snakemake.output.regime),
    )
