from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.files import write_text

    write_text(Path(snakemake.output.listing), "".join(f"{source}\n" for source in snakemake.input.sources))
