from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.config.data import Corpus, TokenBudget
    from atlas.corpora.tokens import check_distinct, tokenise_corpus

    documents = Path(snakemake.input.documents)
    check_distinct(documents, [Path(path) for path in snakemake.input.others])
    tokenise_corpus(
        documents.parent,
        Path(snakemake.input.model),
        Corpus(**snakemake.params.corpus),
        TokenBudget(**snakemake.params.budget),
        snakemake.params.splits,
        Path(snakemake.output.tokens),
    )
