from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.config.latents import Latents
    from atlas.latents.run import LatentInputs, LatentSettings, run_latents

    files, roles = snakemake.input, snakemake.params.roles
    run_latents(
        LatentInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            train_shards=[Path(path) for path in files.train_shards],
            codes=dict(zip(roles, map(Path, files.codes), strict=True)),
            random_codes=dict(zip(roles, map(Path, files.random), strict=True)),
            metrics=Path(files.metrics),
            embedder=Path(files.embedder[0]) if files.embedder else None,
            windows=dict(zip(roles, map(Path, files.windows), strict=True)) if files.windows else {},
        ),
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        roles=roles,
        settings=LatentSettings(Latents(**snakemake.params.latents), **snakemake.params.evaluation),
        table=Path(snakemake.output.table),
        summary=Path(snakemake.output.summary),
    )
