from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.codes.encode import EncodingInputs, run_encoding

    run_encoding(
        EncodingInputs(
            sae=Path(snakemake.input.weights).parent,
            train_shards=[Path(path) for path in snakemake.input.train_shards],
            shards=[Path(path) for path in snakemake.input.shards],
        ),
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        device=device,
        target=Path(snakemake.output.codes),
        random_target=Path(snakemake.output.random),
    )
