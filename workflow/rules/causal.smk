# What latents do: codes + model + eval shards (+ labels)
#                  -> results/effects/<sae id>/
#                     {effects.parquet, doses.parquet, tokens.parquet, continuations.parquet, effects.json}
#                  those of a study's SAEs -> results/<study>_effects.csv
# Labelled concepts: labelled rows and texts + SAE + model + eval shards + embedder
#                    -> results/concepts/<sae id>/concepts.json
#                    those of a study's SAEs -> results/<study>_concepts.csv
# Not part of a study's own table: ask for results/<study>_effects.csv or results/<study>_concepts.csv by name.


rule effects:
    """Effects of an SAE's latents on held-out text, each beside its nulls."""
    input:
        model="results/models/{model}",
        weights=rules.train.output.weights,
        config=rules.train.output.config,
        codes=lambda w: f"results/codes/{sae_row(w).sae_id}/{in_sample_corpus(sae_row(w))}.h5",
        shards=lambda w: shard_paths(w.model, in_sample_corpus(sae_row(w)), "eval"),
        labels=lambda w: ([f"results/autointerp/{sae_row(w).sae_id}/labels.parquet"] if CONFIG.causal.labels else []),
        twins=lambda w: [f"results/saes/{sae_id}/sae_weights.safetensors" for sae_id in effect_twins(w).values()],
        twin_configs=lambda w: [f"results/saes/{sae_id}/cfg.json" for sae_id in effect_twins(w).values()],
    output:
        effects=f"{EFFECTS}/effects.parquet",
        doses=f"{EFFECTS}/doses.parquet",
        tokens=f"{EFFECTS}/tokens.parquet",
        continuations=f"{EFFECTS}/continuations.parquet",
        summary=f"{EFFECTS}/effects.json",
    log:
        "results/logs/effects/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/effects/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=lambda w, attempt: 2 * model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        corpus=lambda w: in_sample_corpus(sae_row(w)),
        causal=CONFIG.causal.model_dump(mode="json", exclude={"twins"}),
        twins=lambda w: list(effect_twins(w)),
        code=code_of("effects"),
    message:
        "Effects of latents of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/effects.py"


rule study_effects:
    """One row per SAE: what its latents do, beside random directions and beside each other."""
    input:
        summaries=lambda w: expand("results/effects/{sae}/effects.json", sae=study_saes(w)),
    output:
        table="results/{study}_effects.csv",
    log:
        "results/logs/study_effects/{study}.log",
    benchmark:
        "results/benchmarks/study_effects/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=study_saes,
        code=code_of("study_effects"),
    message:
        "Writing results/{wildcards.study}_effects.csv"
    script:
        "../scripts/study_effects.py"


rule concepts:
    """Labelled concepts: latents as detectors, and as directions that steer text, beside differences of class means."""
    input:
        model="results/models/{model}",
        rows="results/probing/{model}/rows.safetensors",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=training_facts,
        shards=lambda w: shard_paths(w.model, in_sample_corpus(sae_row(w)), "eval"),
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
        code=code_of("concepts"),
    message:
        "Labelled concepts of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/concepts.py"


rule study_concepts:
    """One row per SAE, task, data set, strength and method: latents beside differences of class means and chance."""
    input:
        results=lambda w: expand("results/concepts/{sae}/concepts.json", sae=study_saes(w)),
    output:
        table="results/{study}_concepts.csv",
    log:
        "results/logs/study_concepts/{study}.log",
    benchmark:
        "results/benchmarks/study_concepts/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=study_saes,
        code=code_of("study_concepts"),
    message:
        "Writing results/{wildcards.study}_concepts.csv"
    script:
        "../scripts/study_concepts.py"
