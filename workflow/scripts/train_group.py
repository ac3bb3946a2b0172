from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.data import Harvest, window_memory
    from atlas.config.mixes import Mix
    from atlas.config.recipe import Recipe
    from atlas.config.tracking import Tracking
    from atlas.devices import choose_two_devices
    from atlas.training.group import GroupInputs, GroupMember, train_group
    from atlas.training.run import Asked
    from atlas.training.tracking import Tracked

    files, settings = snakemake.input, snakemake.params
    # Neither is a param: what is only shown, or where rows are meanwhile, must not rerun a training. Snakemake compares
    # params, never its config.
    tracking = Tracking(**snakemake.config.get("tracking", {}))
    harvest = Harvest(**settings.harvest, **window_memory(snakemake.config, settings.model))

    def member(weights, of):
        folder = Path(weights).parent
        results = Path(str(folder).removesuffix(f"saes/{of['sae_id']}"))
        return GroupMember(
            Asked(
                hook=of["hook"],
                mix=Mix(**of["mix"]),
                recipe=Recipe(**of["recipe"]),
                seed=of["seed"],
                names=of["names"],
                roles=of["roles"],
                monitored=of["monitors"],
                monitor_rows=settings.monitor_rows,
            ),
            folder=folder,
            state=Path(settings.state) / of["sae_id"],
            apart=[path for path in map(Path, files.apart) if any(str(path).endswith(name) for name in of["apart"])],
            tracked=Tracked(tracking, results / "tracking" / of["sae_id"], of["sae_id"]),
            threads=of["threads"],
        )

    model_device, sae_device = choose_two_devices(device, settings.gpus)
    train_group(
        GroupInputs(
            model=Path(files.model),
            audit=Path(files.audit),
            tokens=[Path(path) for path in files.tokens],
            facts=[Path(path) for path in files.facts],
            corpora=[Path(path) for path in files.corpora],
            monitors=[Path(path) for path in files.monitors],
        ),
        [member(*each) for each in zip(snakemake.output.weights, settings.members, strict=True)],
        harvest,
        sae_device,
        Path(settings.windows),
        model_device,
        model_threads=settings.model_threads,
    )
