# Published SAEs: source -> results/published/<name>/ (its files, with their hashes)
#                 those + activation shards -> results/saes/<model>/<hook>/published-<corpora>/<name>/seed-0/
#
# What follows is the same as for an SAE that is trained here.


rule fetch_published:
    """The files of an SAE that was trained elsewhere, and whether they fit what the configuration says of them."""
    input:
        lambda w: local_input(f"saes.{w.sae}", CONFIG.saes[w.sae]),
        wheels=lambda w: wheel_inputs(CONFIG.saes[w.sae]),
    output:
        folder=directory("results/published/{sae}"),
    log:
        "results/logs/fetch_published/{sae}.log",
    benchmark:
        "results/benchmarks/fetch_published/{sae}.tsv"
    wildcard_constraints:
        sae="[A-Za-z0-9._-]+",
    # Before any model is run: what is wrong with the files is then the first that is said.
    priority: 100
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: cost.fetching_memory_mb(published_values(w), attempt),
        disk_mb=lambda w, attempt: int(attempt * (100 + 2 * 4 * published_values(w) / 1e6)),
        runtime=lambda w, attempt: 60 * attempt,
    params:
        lambda w: source_state(CONFIG.saes[w.sae].source),
        name="{sae}",
        spec=lambda w: CONFIG.saes[w.sae].model_dump(mode="json", exclude={"accept_reading"}),
        d_model=lambda w: CONFIG.models[CONFIG.saes[w.sae].model].d_model,
        call=function("atlas.published.fetch.fetch_published"),
    message:
        "Fetching SAE {wildcards.sae}"
    script:
        "../scripts/call.py"


rule publish:
    """A published SAE in this project's own files, after its reading is audited on stored rows of its hook."""
    input:
        "results/audits/{model}.json",
        model="results/models/{model}",
        fetched=lambda w: f"results/published/{w.recipe}",
        shards=training_shards,
        corpora=lambda w: expand("results/corpora/{corpus}/corpus.json", corpus=CONFIG.mixes[w.mix].corpora),
    output:
        folder=[*SAE_PAIR, SAE_FILES["card"]],
    log:
        "results/logs/publish/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/publish/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        mix=f"{STATED}[A-Za-z0-9._-]+",
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=publishing_mb,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        name="{recipe}",
        spec=lambda w: sae_row(w).published.model_dump(mode="json"),
        roles=lambda w: sae_row(w).roles,
        call=function("atlas.published.publish.publish_sae"),
    message:
        "Auditing the reading of {wildcards.recipe} on {wildcards.model} {wildcards.hook}"
    script:
        "../scripts/call.py"
