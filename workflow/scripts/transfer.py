from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.shifts import Place
    from atlas.transfer.run import TransferInputs, run_transfer

    files = snakemake.input
    run_transfer(
        TransferInputs(
            sae=Path(files.weights).parent,
            home_metrics=Path(files.home_metrics),
            away_metrics=Path(files.away_metrics),
            home_shards=[Path(path) for path in files.home_shards],
            away_shards=[Path(path) for path in files.away_shards],
        ),
        home=Place(**snakemake.params.home),
        away=Place(**snakemake.params.away),
        corpora=snakemake.params.corpora,
        device=device,
        target=Path(snakemake.output.transfer),
        table=Path(snakemake.output.latents),
    )
