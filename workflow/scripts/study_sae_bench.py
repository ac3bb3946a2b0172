from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.sae_bench.table import Files, write_sae_bench_table

    kinds = ("core", "probes", "ours", "metrics", "probing")
    found = iter(zip(*(map(Path, snakemake.input[kind]) for kind in kinds), strict=True))
    refusals = snakemake.params.refusals.items()
    saes = {sae: Files(*next(found)) if reason is None else reason for sae, reason in refusals}
    write_sae_bench_table(snakemake.wildcards.study, saes, snakemake.params.corpora, Path(snakemake.output.table))
