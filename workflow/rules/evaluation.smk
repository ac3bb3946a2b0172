# Evaluation: SAE + evaluation shards + reference losses -> results/metrics/<sae id>/metrics.json


rule references:
    """Clean and ablated losses of a model on a corpus, for all hooks: computed once, shared by all SAEs."""
    input:
        model="results/models/{model}",
        shards=lambda w: shard_paths(w.model, w.corpus, "eval"),
    output:
        target="results/references/{model}/{corpus}.h5",
    log:
        "results/logs/references/{model}/{corpus}.log",
    benchmark:
        "results/benchmarks/references/{model}/{corpus}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=model_mb,
        runtime=references_minutes,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        loss_tokens=CONFIG.evaluation.loss_tokens,
        batch_contexts=lambda w: CONFIG.models[w.model].harvest.batch_contexts,
        call=function("atlas.evaluation.references.run_references"),
    message:
        "Reference losses of {wildcards.model} on {wildcards.corpus}"
    script:
        "../scripts/call.py"


rule evaluate:
    """Judge one SAE on every corpus of its studies, under both protocols."""
    input:
        model="results/models/{model}",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=training_facts,
        apart=lambda w: apart(w.mix, ROLES[sae_row(w).sae_id]),
        shards=lambda w: evaluation_shards(home(w)),
        references=lambda w: references_of(w.model, ROLES[sae_row(w).sae_id]),
    output:
        metrics=METRICS,
        sums=DOCUMENT_SUMS,
    log:
        "results/logs/evaluate/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=evaluation_mb,
        runtime=evaluation_minutes,
        gpu=1,
    params:
        hook=lambda w: w.hook,
        scale=1.0,
        roles=lambda w: ROLES[sae_row(w).sae_id],
        recipe=recipe_of,
        evaluation=CONFIG.evaluation.model_dump(mode="json"),
        batch_contexts=lambda w: CONFIG.models[w.model].harvest.batch_contexts,
        code=code_of("evaluate"),
    message:
        "Evaluating {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate.py"
