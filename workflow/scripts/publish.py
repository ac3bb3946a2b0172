from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.saes import PublishedSae
    from atlas.published.publish import PublishingInputs, publish_sae

    publish_sae(
        PublishingInputs(
            model=Path(snakemake.input.model),
            fetched=Path(snakemake.input.fetched),
            shards=[Path(path) for path in snakemake.input.shards],
            corpora=[Path(path) for path in snakemake.input.corpora],
        ),
        snakemake.wildcards.recipe,
        PublishedSae(**snakemake.params.spec),
        snakemake.params.roles,
        Path(snakemake.output.weights).parent,
    )
