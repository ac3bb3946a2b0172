# Training: activation shards of a mix -> results/saes/<model>/<hook>/<mix>/<recipe>/seed-<n>/


rule train:
    """Train one SAE. Killed, it goes on from its last checkpoint; the result is the same to the bit."""
    input:
        model="results/models/{model}",
        audit="results/audits/{model}.json",
        shards=training_shards,
        corpora=lambda w: expand("results/corpora/{corpus}/corpus.json", corpus=CONFIG.mixes[w.mix].corpora),
        apart=lambda w: apart(w.mix, sae_row(w).roles),
        monitors=lambda w: [
            path for corpus in monitor_corpora(w).values() for path in shard_paths(w.model, corpus, "eval")
        ],
    output:
        weights=f"{SAE}/sae_weights.safetensors",
        config=f"{SAE}/cfg.json",
        card=f"{SAE}/run_card.yaml",
        curves=f"{SAE}/training.parquet",
    log:
        "results/logs/train/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/train/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        mix=f"(?!{STATED})[A-Za-z0-9._-]+",
    # A job that a scheduler ends with SIGTERM goes on from its checkpoint; preemption may strike more than once.
    retries: tried_again(3)
    conda:
        "../../envs/atlas.yaml"
    threads: training_threads
    resources:
        mem_mb=training_mb,
        disk_mb=training_disk_mb,
        runtime=training_minutes,
        gpu=1,
    params:
        recipe=lambda w: sae_row(w).recipe.model_dump(mode="json"),
        mix=lambda w: CONFIG.mixes[w.mix].model_dump(mode="json"),
        monitors=monitor_corpora,
        roles=lambda w: sae_row(w).roles,
        monitor_rows=CONFIG.evaluation.monitor_rows,
        # Not an output: Snakemake deletes outputs before a retry, and checkpoints must survive it.
        state=f"{RESULTS}/state/{{model}}/{{hook}}/{{mix}}/{{recipe}}/seed-{{seed}}",
        code=code_of("train"),
    message:
        "Training {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"
