# SAEs judged away from home: another model, hook, corpus, or scale of rows
#          -> results/shifted/<sae id>/<shift>/{metrics.json, transfer.json, latents.parquet} -> results/<study>_transfer.csv


rule evaluate_shifted:
    """Judge one SAE where it was not trained, as `evaluate` judges it at home."""
    input:
        model=lambda w: f"results/models/{away(w).model}",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=lambda w: training_facts_of(w.mix, away(w).model),
        apart=lambda w: apart(w.mix, away(w).roles),
        shards=lambda w: evaluation_shards(away(w)),
        references=lambda w: references_of(away(w).model, away(w).roles),
    output:
        metrics=f"{SHIFTED}/metrics.json",
    log:
        "results/logs/evaluate_shifted/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.log",
    benchmark:
        "results/benchmarks/evaluate_shifted/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=evaluation_mb,
        runtime=evaluation_minutes,
        gpu=1,
    params:
        hook=lambda w: away(w).hook,
        scale=lambda w: away(w).scale,
        roles=lambda w: away(w).roles,
        recipe=recipe_of,
        evaluation=CONFIG.evaluation.model_dump(mode="json"),
        batch_contexts=lambda w: CONFIG.models[away(w).model].harvest.batch_contexts,
        code=code_of("evaluate"),
    message:
        "Evaluating {wildcards.recipe} of {wildcards.model} {wildcards.hook}, seed {wildcards.seed}, shifted: {wildcards.shift}"
    script:
        "../scripts/evaluate.py"


rule transfer:
    """One SAE at home and away: metrics, rates of latents, and what they do on the same tokens."""
    input:
        sae=SAE_PAIR,
        home_metrics=METRICS,
        away_metrics=rules.evaluate_shifted.output.metrics,
        home_shards=lambda w: [path for name in counterparts(w) for path in shard_paths(w.model, name, "eval")],
        away_shards=lambda w: evaluation_shards(away(w)),
    output:
        target=f"{SHIFTED}/transfer.json",
        table=f"{SHIFTED}/latents.parquet",
    log:
        "results/logs/transfer/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.log",
    benchmark:
        "results/benchmarks/transfer/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=codes_mb,
        runtime=encoding_minutes(judged_rows, least=60),
        gpu=1,
    params:
        home=lambda w: asdict(home(w)),
        away=lambda w: asdict(away(w)),
        corpora=counterparts,
        call=function("atlas.transfer.run.run_transfer"),
    message:
        "Transfer of {wildcards.recipe} of {wildcards.model} {wildcards.hook}, seed {wildcards.seed}: {wildcards.shift}"
    script:
        "../scripts/call.py"
