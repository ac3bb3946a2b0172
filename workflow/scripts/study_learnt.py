from pathlib import Path

from atlas.job import job
from atlas.studies.learnt import write_learnt_table

with job(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    write_learnt_table(
        snakemake.wildcards.study,
        dict(zip(params.twins, map(Path, files.comparisons), strict=True)),
        params.corpora,
        params.twins,
        params.stages,
        {(stage, sae): Path(path) for (stage, sae), path in zip(params.asked, files.stages, strict=True)},
        Path(snakemake.output.table),
    )
