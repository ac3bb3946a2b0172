# Frameworks: the same rows and recipes, trained by ours and by peers -> results/frameworks/<contender>/<recipe>/seed-<n>/
#             -> results/frameworks.csv, results/figures/frameworks.{pdf,png}


rule framework_train:
    """Train with one framework, alone on the machine, because its speed is measured."""
    input:
        framework_environment,
        lambda w: f"results/audits/{framework_run(w).model}.json",
        shards=framework_shards,
    output:
        folder=expand(
            f"{FRAMEWORK_RUN}/trained/{{file}}", file=["weights.safetensors", "result.json"], allow_missing=True
        ),
    log:
        "results/logs/framework_train/{contender}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/framework_train/{contender}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        contender="[A-Za-z0-9._-]+",
    conda:
        "../../envs/atlas.yaml"
    # All cores of the call, so that no other job runs beside it. A call without --cores, on a cluster, has no such
    # number, and `workflow.cores` would stop it.
    threads: workflow._cores or 8
    resources:
        # Peers keep dense latents, their gradients and buffers of a batch.
        mem_mb=lambda w, attempt: int(
            attempt * (3000 + 8 * 4 * framework_run(w).recipe.n_latents * framework_run(w).recipe.batch_size / 1e6)
        ),
        runtime=lambda w, attempt: 480 * attempt,
        gpu=1,
    params:
        framework=lambda w: framework_run(w).framework,
        options=lambda w: framework_run(w).options,
        hook=lambda w: framework_run(w).hook,
        mix=lambda w: CONFIG.mixes[framework_run(w).mix].model_dump(mode="json"),
        recipe=lambda w: framework_run(w).recipe.model_dump(mode="json"),
        environments=f"{RESULTS}/environments",
        call=function("atlas.frameworks.run.train_run", also=framework_runner),
    message:
        "Training {wildcards.recipe} with {wildcards.contender}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule framework_sae:
    """A framework's weights as an SAE of ours, and its loss on held-out rows."""
    input:
        folder=rules.framework_train.output.folder,
        training=framework_shards,
        shards=framework_eval_shards,
    output:
        target=expand(
            f"{FRAMEWORK_RUN}/{{file}}",
            file=["sae_weights.safetensors", "cfg.json", "held_out.json"],
            allow_missing=True,
        ),
    log:
        "results/logs/framework_sae/{contender}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/framework_sae/{contender}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        contender="[A-Za-z0-9._-]+",
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        model=lambda w: framework_run(w).model,
        hook=lambda w: framework_run(w).hook,
        rows=CONFIG.evaluation.monitor_rows,
        call=function("atlas.frameworks.run.convert_run"),
    message:
        "Reading what {wildcards.contender} trained with {wildcards.recipe}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule framework_evaluate:
    """Judge what a framework trained as our own SAEs are judged."""
    input:
        model=lambda w: f"results/models/{framework_run(w).model}",
        sae=expand(f"{FRAMEWORK_RUN}/{{file}}", file=["sae_weights.safetensors", "cfg.json"], allow_missing=True),
        train_shards=framework_shards,
        shards=framework_eval_shards,
        references=lambda w: [f"results/references/{framework_run(w).model}/{framework_run(w).corpus}.h5"],
    output:
        target=f"{FRAMEWORK_RUN}/metrics.json",
    log:
        "results/logs/framework_evaluate/{contender}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/framework_evaluate/{contender}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        contender="[A-Za-z0-9._-]+",
    conda:
        "../../envs/atlas.yaml"
    threads: lambda w: model_threads(framework_run(w))
    resources:
        mem_mb=lambda w, attempt: model_mb(framework_run(w), attempt),
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        hook=lambda w: framework_run(w).hook,
        roles=lambda w: {framework_run(w).corpus: "in_sample"},
        recipe=lambda w: framework_run(w).recipe.model_dump(mode="json"),
        settings=CONFIG.evaluation.model_dump(mode="json"),
        batch_contexts=lambda w: CONFIG.models[framework_run(w).model].harvest.batch_contexts,
        call=function("atlas.evaluation.run.run_evaluation"),
    message:
        "Evaluating what {wildcards.contender} trained with {wildcards.recipe}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule frameworks_table:
    """Every run of every framework in one table; columns are documented in docs/frameworks.md."""
    input:
        result=expand("results/frameworks/{run}/trained/result.json", run=FRAMEWORK_RUNS),
        held_out=expand("results/frameworks/{run}/held_out.json", run=FRAMEWORK_RUNS),
        metrics=expand("results/frameworks/{run}/metrics.json", run=FRAMEWORK_RUNS),
    output:
        table=report(
            "results/frameworks.csv",
            category="Frameworks",
            caption="../report/frameworks.rst",
            labels={"kind": "table"},
        ),
    log:
        "results/logs/frameworks_table.log",
    benchmark:
        "results/benchmarks/frameworks_table.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        runs_by=list(FRAMEWORK_RUNS),
        corpus=next((run.corpus for run in FRAMEWORK_RUNS.values()), None),
        call=function("atlas.frameworks.table.write_frameworks_table"),
    message:
        "Writing results/frameworks.csv"
    script:
        "../scripts/call.py"


rule frameworks_figure:
    """Frameworks side by side as small multiples."""
    input:
        table=rules.frameworks_table.output.table,
    output:
        targets=[
            report(
                "results/figures/frameworks.pdf",
                category="Frameworks",
                caption="../report/figure.rst",
                labels={"kind": "figure"},
            ),
            "results/figures/frameworks.png",
            "results/figures/frameworks.txt",
        ],
    log:
        "results/logs/frameworks_figure.log",
    benchmark:
        "results/benchmarks/frameworks_figure.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.figures.frameworks.draw_frameworks"),
    message:
        "Drawing results/figures/frameworks.pdf"
    script:
        "../scripts/call.py"
