from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, gpus=0):
    from atlas.config.site import Prompts
    from atlas.site.prompts import PromptedSae, write_prompts_page

    write_prompts_page(
        snakemake.wildcards.study,
        snakemake.wildcards.name,
        Path(snakemake.input.source),
        dict(zip(snakemake.params.models, map(Path, snakemake.input.models), strict=True)),
        [
            PromptedSae(sae_id, Path(weights).parent, hook, pages)
            for (sae_id, hook, pages), weights in zip(snakemake.params.saes, snakemake.input.weights, strict=True)
        ],
        Prompts(**snakemake.params.settings),
        snakemake.params.latents_per_sae,
        Path(snakemake.output.page),
    )
