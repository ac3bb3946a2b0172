# Planted models: configuration -> results/models/<model>/ (truth, identity) -> results/audits/<model>.json
#                 -> results/activations/<model>/<corpus>/<split>-<shard>.h5, in the store's own format; then as any other
# What SAEs found of the truth is a stage: workflow/atlas/planted/study.py.


rule plant_truth:
    """Draw a truth: directions of features, how often and how strongly they fire."""
    output:
        folder=directory("results/models/{model}"),
    log:
        "results/logs/plant_truth/{model}.log",
    benchmark:
        "results/benchmarks/plant_truth/{model}.tsv"
    wildcard_constraints:
        model=ONLY_PLANTED_MODELS,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        name="{model}",
        model=lambda w: CONFIG.models[w.model].model_dump(mode="json", include=set(ModelSpec.model_fields)),
        call=function("atlas.planted.truth.write_truth"),
    message:
        "Drawing the truth of {wildcards.model}"
    script:
        "../scripts/call.py"


rule audit_truth:
    """Check that drawn rows are what the truth says; gates all trainings on them."""
    input:
        folder="results/models/{model}",
    output:
        target="results/audits/{model}.json",
    log:
        "results/logs/audit_truth/{model}.log",
    benchmark:
        "results/benchmarks/audit_truth/{model}.tsv"
    wildcard_constraints:
        model=ONLY_PLANTED_MODELS,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        storage_dtype=lambda w: CONFIG.models[w.model].harvest.storage_dtype,
        call=function("atlas.planted.plant.audit_truth"),
    message:
        "Auditing the truth of {wildcards.model}"
    script:
        "../scripts/call.py"


rule describe_sample:
    """Facts about a planted corpus, for run cards."""
    output:
        target="results/corpora/{corpus}/corpus.json",
    log:
        "results/logs/describe_sample/{corpus}.log",
    benchmark:
        "results/benchmarks/describe_sample/{corpus}.tsv"
    wildcard_constraints:
        corpus=ONLY_PLANTED_CORPORA,
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        name="{corpus}",
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json", include={"source"}),
        call=function("atlas.planted.plant.describe_sample"),
    message:
        "Describing sample {wildcards.corpus}"
    script:
        "../scripts/call.py"


rule plant:
    """Draw the rows of one shard of a planted corpus into an activation file."""
    input:
        "results/audits/{model}.json",
        folder="results/models/{model}",
    output:
        target="results/activations/{model}/{corpus}/{split}-{shard}.h5",
    log:
        "results/logs/plant/{model}/{corpus}/{split}-{shard}.log",
    benchmark:
        "results/benchmarks/plant/{model}/{corpus}/{split}-{shard}.tsv"
    wildcard_constraints:
        model=ONLY_PLANTED_MODELS,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 3000 * attempt,
        disk_mb=harvest_disk_mb,
        # A million rows of 3,200 features took a minute.
        runtime=lambda w, attempt: int(
            attempt * (20 + 2e-7 * shard_tokens(w) * CONFIG.models[w.model].source.n_features / 60)
        ),
    params:
        name="{corpus}",
        corpus=lambda w: CONFIG.corpora[w.corpus].model_dump(mode="json", include={"source"}),
        harvest=lambda w: CONFIG.models[w.model]
        .harvest.of(w.corpus)
        .model_dump(mode="json", exclude={"keep_train", "corpora"}),
        call=function("atlas.planted.plant.plant_shard"),
    message:
        "Planting {wildcards.model} in {wildcards.corpus}, {wildcards.split} shard {wildcards.shard}"
    script:
        "../scripts/call.py"


# Of a planted model these are drawn, not taken from a source.
ruleorder: plant_truth > prepare_model
ruleorder: audit_truth > audit_model
ruleorder: describe_sample > build_documents
ruleorder: plant > harvest_temporary > harvest
