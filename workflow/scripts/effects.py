from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.causal.run import CausalInputs, Outputs, run_effects
    from atlas.config.causal import Causal

    files, params = snakemake.input, snakemake.params
    run_effects(
        CausalInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            codes=Path(files.codes),
            shards=[Path(path) for path in files.shards],
            labels=Path(files.labels[0]) if files.labels else None,
            twins=dict(zip(params.twins, (Path(path).parent for path in files.twins), strict=True)),
        ),
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        corpus=params.corpus,
        settings=Causal(**params.causal),
        device=device,
        outputs=Outputs(
            *(Path(snakemake.output[name]) for name in ("effects", "doses", "tokens", "continuations", "summary"))
        ),
    )
