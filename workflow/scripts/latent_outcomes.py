from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.autointerp.outcome import write_latent_outcomes
    from atlas.config.autointerp import Autointerp

    files = snakemake.input
    write_latent_outcomes(
        Path(files.latents),
        Path(files.labels),
        Path(files.scores),
        Path(files.tokens),
        Autointerp(**snakemake.params.autointerp),
        Path(snakemake.output.table),
    )
