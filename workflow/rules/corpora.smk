# Corpora: source -> results/corpora/<corpus>/ (documents, counts, fingerprints) -> results/tokens/<model>/<corpus>.h5


rule build_documents:
    """Read a source, apply filter and template, split its documents by hash."""
    input:
        source=lambda w: source_input(f"corpora.{w.corpus}", CONFIG.corpora[w.corpus]),
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
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json"),
        files=lambda w: source_state(CONFIG.corpora[w.corpus].source),
        code=code_of("build_documents"),
    message:
        "Building corpus {wildcards.corpus}"
    script:
        "../scripts/build_documents.py"


rule check_apart:
    """Evaluation text that is training text of another corpus is refused, near-duplicates are counted, pair by pair."""
    input:
        lambda w: sorted({f"results/corpora/{each}/corpus.json" for each in (w.corpus, w.other)}),
        trained="results/corpora/{corpus}/documents.parquet",
        judged="results/corpora/{other}/documents.parquet",
    output:
        target="results/corpora/{corpus}/apart_from/{other}.json",
    log:
        "results/logs/check_apart/{corpus}/{other}.log",
    benchmark:
        "results/benchmarks/check_apart/{corpus}/{other}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        # All words of both are read; 109 million characters, 35 MB packed, took 4 minutes on a busy core.
        runtime=lambda w, input, attempt: int((20 + 0.3 * input.size_mb) * attempt),
    params:
        call=function("atlas.corpora.apart.write_apart"),
    message:
        "Checking that no text of {wildcards.corpus} that is trained on is judged in {wildcards.other}"
    script:
        "../scripts/call.py"


rule tokenise:
    """Tokenise and pack a corpus for a model."""
    input:
        model="results/models/{model}",
        documents=lambda w: text_of(w.corpus, "documents.parquet"),
        summary="results/corpora/{corpus}/corpus.json",
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
        mem_mb=packing_mb,
        runtime=packing_minutes,
    params:
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json"),
        budget=lambda w: CONFIG.models[w.model].harvest.of(w.corpus).model_dump(include=set(TokenBudget.model_fields)),
        splits=lambda w: splits_used(w.model, w.corpus),
        code=code_of("tokenise"),
    message:
        "Tokenising {wildcards.corpus} for {wildcards.model}"
    script:
        "../scripts/tokenise.py"
