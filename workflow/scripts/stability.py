from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.config.downstream import Stability
    from atlas.stability.run import SeedFiles, run_stability

    saes = [Path(path).parent for path in snakemake.input.weights]
    files = zip(saes, map(Path, snakemake.input.codes), map(Path, snakemake.input.metrics), strict=True)
    run_stability(
        {seed: SeedFiles(*paths) for seed, paths in zip(snakemake.params.seeds, files, strict=True)},
        corpus=snakemake.params.corpus,
        settings=Stability(**snakemake.params.stability),
        device=device,
        summary=Path(snakemake.output.summary),
        table=Path(snakemake.output.table),
    )
