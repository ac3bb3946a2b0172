# Labelled concepts: labelled rows and texts + SAE + model + eval shards + embedder
#                    -> results/concepts/<sae id>/concepts.json
#                    those of a study's SAEs -> results/<study>_concepts.csv
# Not part of a study's own table: ask for results/<study>_concepts.csv by name.


rule concepts:
    """Labelled concepts: latents as detectors, and as directions that steer text, beside differences of class means."""
    input:
        model="results/models/{model}",
        rows="results/probing/{model}/rows.safetensors",
        sae_folder=SAE_PAIR,
        train_shards=training_facts,
        shards=lambda w: shard_paths(w.model, sae_row(w).in_sample_corpus, "eval"),
        source=lambda w: source_input("probing", CONFIG.probing),
        embedder=[] if CONFIG.latents.embedder is None else ["results/embedder"],
    output:
        result="results/concepts/{model}/{hook}/{mix}/{recipe}/seed-{seed}/concepts.json",
    log:
        "results/logs/concepts/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/concepts/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=lambda w, attempt: probing_mb(w, attempt) + model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        concepts=CONFIG.concepts.model_dump(mode="json"),
        probing=CONFIG.probing.model_dump(
            mode="json", include={"source", "datasets", "max_prompts", "max_tokens", "test_share", "splits"}
        ),
        call=function("atlas.concepts.run.run_concepts"),
    message:
        "Labelled concepts of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"
