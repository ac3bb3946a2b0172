from pathlib import Path

from atlas.job import job
from atlas.twins.compare import Judged, write_comparison

with job(snakemake.log[0]):
    files, twins = snakemake.input, snakemake.params.twins
    judged = [
        Judged(Path(metrics), Path(sums)) for metrics, sums in zip(files.twin_metrics, files.twin_sums, strict=True)
    ]
    write_comparison(
        "{model}/{hook}/{mix}/{recipe}/seed-{seed}".format(**snakemake.wildcards),
        Judged(Path(files.metrics), Path(files.sums)),
        {kind: (name, each) for (kind, name), each in zip(twins.items(), judged, strict=True)},
        snakemake.params.corpora,
        Path(snakemake.output.comparison),
    )
