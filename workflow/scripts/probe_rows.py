from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.downstream import Probing
    from atlas.models.load import load_model
    from atlas.probing.prompts import make_probe_rows

    make_probe_rows(
        load_model(Path(snakemake.input.model), device),
        Path(snakemake.input.model),
        snakemake.params.hooks,
        Probing(**snakemake.params.probing),
        Path(snakemake.input.source[0]),
        Path(snakemake.output.rows),
    )
