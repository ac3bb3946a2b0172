# Training: activation shards of a mix -> results/saes/<model>/<hook>/<mix>/<recipe>/seed-<n>/
#           of a model in mode 'stream', one job for all SAEs of a group: the model, run over their text -> the same files


rule train:
    """Train one SAE. Killed, it goes on from its last checkpoint; the result is the same to the bit."""
    input:
        model="results/models/{model}",
        audit="results/audits/{model}.json",
        shards=training_shards,
        facts=lambda w: training_facts(w) if CONFIG.models[w.model].harvest.window_shards else [],
        corpora=lambda w: expand("results/corpora/{corpus}/corpus.json", corpus=CONFIG.mixes[w.mix].corpora),
        apart=lambda w: apart(w.mix, sae_row(w).roles),
        monitors=lambda w: [
            path for corpus in monitor_corpora(w).values() for path in shard_paths(w.model, corpus, "eval")
        ],
    output:
        **SAE_FILES,
    log:
        "results/logs/train/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/train/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        mix=f"(?!{STATED})[A-Za-z0-9._-]+",
        model=models_that(lambda harvest: harvest.mode == "store"),
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
        window_shards=lambda w: CONFIG.models[w.model].harvest.window_shards,
        # Not an output: Snakemake deletes outputs before a retry, and checkpoints must survive it.
        state=f"{RESULTS}/state/{{model}}/{{hook}}/{{mix}}/{{recipe}}/seed-{{seed}}",
        code=code_of("train"),
    message:
        "Training {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


for GROUP in GROUPS:

    rule:
        # Killed, it goes on from the checkpoints of its SAEs; the results are the same to the bit.
        name:
            f"train_group_{GROUPS.index(GROUP)}"
        input:
            model=f"results/models/{GROUP.model}",
            audit=f"results/audits/{GROUP.model}.json",
            tokens=[f"results/tokens/{GROUP.model}/{corpus}.h5" for corpus in GROUP.corpora],
            facts=group_facts(GROUP),
            corpora=[f"results/corpora/{corpus}/corpus.json" for corpus in GROUP.corpora],
            apart=group_apart(GROUP),
            monitors=group_monitors(GROUP),
        output:
            weights=group_files(GROUP, "weights"),
            config=group_files(GROUP, "config"),
            card=group_files(GROUP, "card"),
            curves=group_files(GROUP, "curves"),
        log:
            f"results/logs/train_group/{GROUP.name}.log",
        benchmark:
            f"results/benchmarks/train_group/{GROUP.name}.tsv"
        retries: tried_again(3)
        conda:
            "../../envs/atlas.yaml"
        threads: group_threads(GROUP)
        resources:
            mem_mb=group_mb(GROUP),
            disk_mb=group_disk_mb(GROUP),
            runtime=group_minutes(GROUP),
            gpu=group_gpus(GROUP),
            # Two GPUs of one job are of no use on two nodes.
            nodes=1,
        params:
            model=GROUP.model,
            members=group_members(GROUP),
            harvest=CONFIG.models[GROUP.model].harvest.model_dump(
                mode="json", exclude=NOT_OF_A_SHARD - {"corpora", "mode", "window_shards", "statistics_shards"}
            ),
            model_threads=model_threads(GROUP),
            gpus=group_gpus(GROUP),
            monitor_rows=CONFIG.evaluation.monitor_rows,
            # Not an output: see rule train.
            state=f"{RESULTS}/state",
            windows=f"{RESULTS}/state/windows/{GROUP.name}",
            code=code_of("train_group"),
        message:
            f"Training {len(GROUP.rows)} SAEs of {GROUP.model} from one pass over {', '.join(GROUP.corpora)}"
        script:
            "../scripts/train_group.py"
