# SAE Bench: model + SAELens export + evaluation shards, in its own environment
#                -> results/sae_bench/<sae id>/{core,probes}.json, as SAE Bench writes them, and what ran: {core,probes}_run.json
#            those, and our numbers on the same tokens -> results/<study>_sae_bench.csv
# Not part of a study's own table: ask for results/<study>_sae_bench.csv by name. What it means: docs/sae_bench.md.

SAE_BENCH = "results/sae_bench/{model}/{hook}/{mix}/{recipe}/seed-{seed}"


rule sae_bench_core:
    """SAE Bench's own core evaluation, on the contexts on which our losses are measured."""
    input:
        model="results/models/{model}",
        export=f"{EXPORT_OF['saelens']}/export.json",
        shards=sae_bench_shards,
        environment="results/environments/sae_bench/ready",
    output:
        theirs=f"{SAE_BENCH}/core.json",
        run=f"{SAE_BENCH}/core_run.json",
    log:
        "results/logs/sae_bench_core/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/sae_bench_core/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=sae_bench_mb,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        loss_tokens=CONFIG.evaluation.loss_tokens,
        batch_contexts=CONFIG.sae_bench.batch_contexts,
        code=code_of("sae_bench"),
    message:
        "SAE Bench's core evaluation of {wildcards.recipe} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/sae_bench.py"


rule sae_bench_probes:
    """SAE Bench's evaluation with sae-probes, on data sets that sae-probes brings along."""
    input:
        model="results/models/{model}",
        export=f"{EXPORT_OF['saelens']}/export.json",
        environment="results/environments/sae_bench/ready",
    output:
        theirs=f"{SAE_BENCH}/probes.json",
        run=f"{SAE_BENCH}/probes_run.json",
    log:
        "results/logs/sae_bench_probes/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/sae_bench_probes/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=sae_bench_mb,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        datasets=CONFIG.sae_bench.datasets,
        ks=CONFIG.sae_bench.ks,
        code=code_of("sae_bench"),
    message:
        "sae-probes of {wildcards.recipe} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/sae_bench.py"


rule sae_bench_ours:
    """Our numbers on the tokens that SAE Bench is given, and what its formulas make of our rows."""
    input:
        sae_folder=SAE_PAIR,
        shards=sae_bench_shards,
    output:
        target=f"{SAE_BENCH}/ours.json",
    log:
        "results/logs/sae_bench_ours/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/sae_bench_ours/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=codes_mb,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        loss_tokens=CONFIG.evaluation.loss_tokens,
        batch_contexts=CONFIG.sae_bench.batch_contexts,
        call=function("atlas.sae_bench.ours.run_ours"),
    message:
        "Ours beside SAE Bench: {wildcards.recipe} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"
