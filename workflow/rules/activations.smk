# Activations: one forward pass of a corpus shard -> results/activations/<model>/<corpus>/<split>-<shard>.h5, all hooks
import re


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
        harvest=lambda w: CONFIG.models[w.model]
        .harvest.of(w.corpus)
        .model_dump(mode="json", exclude={"keep_train", "corpora"}),
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
        model="|".join(re.escape(name) for name, model in CONFIG.models.items() if not model.harvest.keep_train)
        or "(?!)",
        split="train",


# Both can make a temporary file.
ruleorder: harvest_temporary > harvest
