# What latents do: codes + model + eval shards (+ labels)
#                  -> results/effects/<sae id>/
#                     {effects.parquet, doses.parquet, tokens.parquet, continuations.parquet, effects.json}
#                  those of a study's SAEs -> results/<study>_effects.csv
# Not part of a study's own table: ask for results/<study>_effects.csv by name.


rule effects:
    """Effects of an SAE's latents on held-out text, each beside its nulls."""
    input:
        lambda w: [f"results/saes/{sae_id}/cfg.json" for sae_id in effect_twins(w).values()],
        model="results/models/{model}",
        sae=SAE_PAIR,
        codes=lambda w: f"results/codes/{sae_row(w).sae_id}/{sae_row(w).in_sample_corpus}.h5",
        shards=lambda w: shard_paths(w.model, sae_row(w).in_sample_corpus, "eval"),
        labels=lambda w: ([f"results/autointerp/{sae_row(w).sae_id}/labels.parquet"] if CONFIG.causal.labels else []),
        twins=lambda w: [f"results/saes/{sae_id}/sae_weights.safetensors" for sae_id in effect_twins(w).values()],
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
        corpus=lambda w: sae_row(w).in_sample_corpus,
        settings=CONFIG.causal.model_dump(mode="json", exclude={"twins"}),
        twins_by=lambda w: list(effect_twins(w)),
        call=function("atlas.causal.run.run_effects"),
    message:
        "Effects of latents of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"
