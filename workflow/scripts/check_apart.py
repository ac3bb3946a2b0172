from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.corpora.apart import check_apart
    from atlas.files import write_json

    compared = check_apart(Path(snakemake.input.trained), Path(snakemake.input.judged))
    write_json(Path(snakemake.output.report), compared)
