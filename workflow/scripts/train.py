from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.mixes import Mix
    from atlas.config.recipe import Recipe
    from atlas.config.tracking import Tracking
    from atlas.training.run import TrainingInputs, run_training
    from atlas.training.tracking import Tracked

    folder = Path(snakemake.output.weights).parent
    names = {key: snakemake.wildcards[key] for key in ("model", "mix", "recipe")}
    sae_id = "{model}/{hook}/{mix}/{recipe}/seed-{seed}".format(**snakemake.wildcards)
    results = Path(str(folder).removesuffix(f"saes/{sae_id}"))
    run_training(
        TrainingInputs(
            model=Path(snakemake.input.model),
            shards=[Path(path) for path in snakemake.input.shards],
            corpora=[Path(path) for path in snakemake.input.corpora],
            monitors=[Path(path) for path in snakemake.input.monitors],
            apart=[Path(path) for path in snakemake.input.apart],
            facts=[Path(path) for path in snakemake.input.facts],
        ),
        hook=snakemake.wildcards.hook,
        mix=Mix(**snakemake.params.mix),
        recipe=Recipe(**snakemake.params.recipe),
        seed=int(snakemake.wildcards.seed),
        names=names,
        roles=snakemake.params.roles,
        monitored=snakemake.params.monitors,
        monitor_rows=snakemake.params.monitor_rows,
        device=device,
        folder=folder,
        state=Path(snakemake.params.state),
        # Not a param: what is only shown must not rerun a training. Snakemake compares params, never its config.
        window_shards=snakemake.params.window_shards,
        tracked=Tracked(Tracking(**snakemake.config.get("tracking", {})), results / "tracking" / sae_id, sae_id),
    )
