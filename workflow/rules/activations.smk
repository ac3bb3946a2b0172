# Activations: one forward pass of a corpus shard -> results/activations/<model>/<corpus>/<split>-<shard>.h5, all hooks
#              of training shards in windows, what is known of the first ones -> …/facts-<shard>.h5


rule harvest:
    """Store the activations of every hook for one shard of a corpus."""
    input:
        model="results/models/{model}",
        tokens="results/tokens/{model}/{corpus}.h5",
        audit="results/audits/{model}.json",
    output:
        shard="results/activations/{model}/{corpus}/{split}-{shard}.h5",
    log:
        "results/logs/harvest/{model}/{corpus}/{split}-{shard}.log",
    benchmark:
        "results/benchmarks/harvest/{model}/{corpus}/{split}-{shard}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=harvest_mb,
        disk_mb=harvest_disk_mb,
        runtime=harvest_minutes,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        harvest=lambda w: CONFIG.models[w.model].harvest.of(w.corpus).model_dump(mode="json", exclude=NOT_OF_A_SHARD),
        code=code_of("harvest"),
    message:
        "Harvesting {wildcards.model} on {wildcards.corpus}, {wildcards.split} shard {wildcards.shard}"
    script:
        "../scripts/harvest.py"


use rule harvest as harvest_temporary with:
    output:
        shard=temp("results/activations/{model}/{corpus}/{split}-{shard}.h5"),
    wildcard_constraints:
        # Models with `keep_train: false`; (?!) matches none. Eval files are small, and later stages read them too.
        model=models_that(lambda harvest: not harvest.keep_train),
        split="train",


rule keep_facts:
    """Facts of a training shard that is stored."""
    input:
        shard="results/activations/{model}/{corpus}/train-{shard}.h5",
    output:
        target="results/activations/{model}/{corpus}/facts-{shard}.h5",
    log:
        "results/logs/keep_facts/{model}/{corpus}/{shard}.log",
    benchmark:
        "results/benchmarks/keep_facts/{model}/{corpus}/{shard}.tsv"
    wildcard_constraints:
        model=models_that(lambda harvest: harvest.window_shards is not None and harvest.mode == "store"),
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=facts_mb,
        runtime=lambda w, attempt: 10 * attempt,
    params:
        statistics_shards=lambda w: CONFIG.models[w.model].harvest.statistics_shards,
        call=function("atlas.activations.facts.keep_facts"),
    message:
        "Facts of {wildcards.model} on {wildcards.corpus}, training shard {wildcards.shard}"
    script:
        "../scripts/call.py"


rule harvest_facts:
    """Facts of a training shard whose rows are not kept."""
    input:
        model="results/models/{model}",
        tokens="results/tokens/{model}/{corpus}.h5",
        audit="results/audits/{model}.json",
    output:
        facts="results/activations/{model}/{corpus}/facts-{shard}.h5",
    log:
        "results/logs/harvest_facts/{model}/{corpus}/{shard}.log",
    benchmark:
        "results/benchmarks/harvest_facts/{model}/{corpus}/{shard}.tsv"
    wildcard_constraints:
        model=models_that(lambda harvest: harvest.mode == "stream"),
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=harvest_facts_mb,
        disk_mb=facts_disk_mb,
        runtime=facts_minutes,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        harvest=lambda w: CONFIG.models[w.model]
        .harvest.of(w.corpus)
        .model_dump(mode="json", exclude=NOT_OF_A_SHARD - {"statistics_shards"}),
        code=code_of("harvest_facts"),
    message:
        "Facts of {wildcards.model} on {wildcards.corpus}, training shard {wildcards.shard}"
    script:
        "../scripts/harvest_facts.py"


# Both can make a temporary file.
ruleorder: harvest_temporary > harvest
