# Latents: SAE + eval shards -> results/codes/<sae id>/<corpus>.h5 (and random/<corpus>.h5, a random dictionary's)
#          eval shards + embedder -> results/windows/<model>/<corpus>.h5
# What is computed from them for each SAE is a stage: workflow/atlas/latents/study.py.


rule encode:
    """Sparse codes of an SAE on a corpus, and of the random dictionary beside it: rows are read once."""
    input:
        sae=SAE_PAIR,
        train_shards=training_facts,
        shards=lambda w: shard_paths(w.model, w.corpus, "eval"),
    output:
        target=f"{CODES}/{{corpus}}.h5",
        random_target=f"{CODES}/random/{{corpus}}.h5",
    log:
        "results/logs/encode/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{corpus}.log",
    benchmark:
        "results/benchmarks/encode/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{corpus}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=codes_mb,
        runtime=encoding_minutes(corpus_rows, least=120),
        gpu=1,
    params:
        call=function("atlas.codes.encode.run_encoding"),
    message:
        "Encoding {wildcards.corpus} by {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule prepare_embedder:
    """The sentence encoder behind coherence, and how it pools."""
    input:
        lambda w: local_input("latents.embedder", CONFIG.latents.embedder),
        wheel=lambda w: wheel_inputs(CONFIG.latents.embedder),
    output:
        folder=directory("results/embedder"),
    log:
        "results/logs/prepare_embedder.log",
    benchmark:
        "results/benchmarks/prepare_embedder.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        lambda w: source_state(CONFIG.latents.embedder.source),
        spec=lambda w: CONFIG.latents.embedder.model_dump(mode="json"),
        call=function("atlas.latents.embedder.prepare_embedder"),
    message:
        "Preparing the sentence encoder"
    script:
        "../scripts/call.py"


rule embed_windows:
    """What stands around each row of a corpus, embedded once for the latents of all SAEs."""
    input:
        model="results/models/{model}",
        shards=lambda w: shard_paths(w.model, w.corpus, "eval"),
        embedder="results/embedder",
    output:
        target="results/windows/{model}/{corpus}.h5",
    log:
        "results/logs/embed_windows/{model}/{corpus}.log",
    benchmark:
        "results/benchmarks/embed_windows/{model}/{corpus}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        width=CONFIG.latents.window_tokens,
        call=function("atlas.latents.embedded_windows.run_embedding"),
    message:
        "Embedding windows of {wildcards.corpus} for {wildcards.model}"
    script:
        "../scripts/call.py"
