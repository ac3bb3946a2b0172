from pathlib import Path

from atlas.job import job
from atlas.studies.concepts import write_concepts_table

with job(snakemake.log[0]):
    write_concepts_table(
        study=snakemake.wildcards.study,
        saes=list(snakemake.params.saes),
        results=[Path(path) for path in snakemake.input.results],
        table=Path(snakemake.output.table),
    )
