from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.get("gpu", 0)) as device:
    from atlas.autointerp.run import AutointerpInputs, Outputs, run_autointerp
    from atlas.config.autointerp import Autointerp

    files, corpora = snakemake.input, snakemake.params.corpora
    run_autointerp(
        AutointerpInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            train_shards=[Path(path) for path in files.train_shards],
            codes=dict(zip(corpora, map(Path, files.codes), strict=True)),
            random_codes=dict(zip(corpora, map(Path, files.random), strict=True)),
            embedder=Path(files.embedder[0]) if files.embedder else None,
            replies=Path(snakemake.params.replies),
            delphi=Path(files.delphi[0]).with_name("bin") / "python" if files.delphi else None,
            client_model=Path(files.client_model[0]) if files.client_model else None,
        ),
        hook=snakemake.wildcards.hook,
        seed=int(snakemake.wildcards.seed),
        settings=Autointerp(**snakemake.params.autointerp),
        bootstrap_samples=snakemake.params.bootstrap_samples,
        device=device,
        outputs=Outputs(
            *(Path(snakemake.output[name]) for name in ("labels", "scores", "answers", "tokens", "summary"))
        ),
    )
