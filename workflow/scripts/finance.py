from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.finance import Finance
    from atlas.config.study import Evaluation
    from atlas.finance.run import FinanceInputs, FinanceSettings, run_finance

    files, params = snakemake.input, snakemake.params
    shards = {name: [Path(path) for path in getattr(files, name)] for name in ("plain", "rewritten", "moved")}
    run_finance(
        FinanceInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            train_shards=[Path(path) for path in files.train_shards],
            shards=shards,
            references=Path(files.references),
            codes=Path(files.codes),
            generic_codes=Path(files.generic_codes),
            random_codes=Path(files.random_codes),
        ),
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        settings=FinanceSettings(Finance(**params.finance), Evaluation(**params.evaluation), **params.sizes),
        device=device,
        target=Path(snakemake.output.result),
        draws=Path(snakemake.output.draws),
    )
