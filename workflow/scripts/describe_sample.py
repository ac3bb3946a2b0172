from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.config.data import Corpus
    from atlas.planted.plant import describe_sample

    corpus = Corpus(**snakemake.params.corpus)
    describe_sample(snakemake.wildcards.corpus, corpus, Path(snakemake.output.summary))
