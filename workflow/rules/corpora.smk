# Corpora: source -> results/corpora/<corpus>/ (documents, counts, fingerprints) -> results/tokens/<model>/<corpus>.h5


rule build_documents:
    """Read a source, apply filter and template, split its documents by hash."""
    input:
        source=lambda w: source_input(CONFIG.corpora[w.corpus].source),
    output:
        documents="results/corpora/{corpus}/documents.parquet",
        summary="results/corpora/{corpus}/corpus.json",
    log:
        "results/logs/build_documents/{corpus}.log",
    benchmark:
        "results/benchmarks/build_documents/{corpus}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json"),
        code=CODE["corpora"],
    message:
        "Building corpus {wildcards.corpus}"
    script:
        "../scripts/build_documents.py"


rule tokenise:
    """Tokenise and pack a corpus for a model; evaluation text that was trained on is refused here."""
    input:
        model="results/models/{model}",
        documents="results/corpora/{corpus}/documents.parquet",
        summary="results/corpora/{corpus}/corpus.json",
        others=lambda w: expand(
            "results/corpora/{other}/documents.parquet",
            other=[c for c in training_corpora(w.model) if c != w.corpus],
        ),
    output:
        tokens="results/tokens/{model}/{corpus}.h5",
    log:
        "results/logs/tokenise/{model}/{corpus}.log",
    benchmark:
        "results/benchmarks/tokenise/{model}/{corpus}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json"),
        budget=lambda w: CONFIG.models[w.model].harvest.model_dump(include=set(TokenBudget.model_fields)),
        splits=lambda w: splits_used(w.model, w.corpus),
        code=CODE["corpora"],
    message:
        "Tokenising {wildcards.corpus} for {wildcards.model}"
    script:
        "../scripts/tokenise.py"
