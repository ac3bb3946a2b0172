from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.activations.store import open_shards
    from atlas.evaluation.references import compute_references
    from atlas.models.load import load_model

    loaded = load_model(Path(snakemake.input.model), device)
    compute_references(
        loaded,
        open_shards([Path(path) for path in snakemake.input.shards]),
        snakemake.params.hooks,
        snakemake.params.evaluation["loss_tokens"],
        snakemake.params.batch_contexts,
        Path(snakemake.output.references),
    )
