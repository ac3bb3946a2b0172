from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.absorption.prompts import make_word_rows
    from atlas.config.downstream import Absorption
    from atlas.models.load import load_model

    make_word_rows(
        load_model(Path(snakemake.input.model), device),
        Path(snakemake.input.model),
        snakemake.params.hooks,
        Absorption(**snakemake.params.absorption),
        Path(snakemake.output.rows),
    )
