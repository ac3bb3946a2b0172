from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.recipe import Recipe
    from atlas.config.study import Evaluation
    from atlas.evaluation.run import EvaluationInputs, run_evaluation

    run_evaluation(
        EvaluationInputs(
            model=Path(snakemake.input.model),
            sae=Path(snakemake.input.weights).parent,
            train_shards=[Path(path) for path in snakemake.input.train_shards],
            shards=[Path(path) for path in snakemake.input.shards],
            references=[Path(path) for path in snakemake.input.references],
        ),
        hook=snakemake.params.hook,
        roles=snakemake.params.roles,
        recipe=Recipe(**snakemake.params.recipe) if snakemake.params.recipe else None,
        settings=Evaluation(**snakemake.params.evaluation),
        seed=int(snakemake.wildcards.seed),
        device=device,
        target=Path(snakemake.output.metrics),
        batch_contexts=snakemake.params.batch_contexts,
        scale=snakemake.params.scale,
        # Under a shift nothing is compared with it.
        document_sums=Path(sums) if (sums := snakemake.output.get("sums")) else None,
    )
