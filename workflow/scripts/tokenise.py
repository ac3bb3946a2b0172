from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.config.corpora import Corpus
    from atlas.config.data import TokenBudget
    from atlas.corpora.tokens import tokenise_corpus

    tokenise_corpus(
        Path(snakemake.input.documents).parent,
        Path(snakemake.input.model),
        Corpus(**snakemake.params.corpus),
        TokenBudget(**snakemake.params.budget),
        snakemake.params.splits,
        Path(snakemake.output.tokens),
    )
