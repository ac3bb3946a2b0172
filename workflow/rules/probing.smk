# Probing: labelled prompts + model -> results/probing/<model>/rows.safetensors, all hooks, once per model
#          those rows + SAE -> results/probing/<sae id>/probing.json
#          those of a study's SAEs -> results/<study>_probing.csv
# Not part of a study's own table: ask for results/<study>_probing.csv by name.

PROBING = "results/probing/{model}/{hook}/{mix}/{recipe}/seed-{seed}"


rule probe_rows:
    """Activations at the last token of every labelled prompt, at all hooks of a model."""
    input:
        model="results/models/{model}",
        audit="results/audits/{model}.json",
        source=lambda w: source_input("probing", CONFIG.probing),
    output:
        rows="results/probing/{model}/rows.safetensors",
    log:
        "results/logs/probe_rows/{model}.log",
    benchmark:
        "results/benchmarks/probe_rows/{model}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=probing_mb,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        probing=CONFIG.probing.model_dump(mode="json", include={"source", "datasets", "max_prompts", "max_tokens"}),
        files=lambda w: source_state(CONFIG.probing.source),
        code=code_of("probe_rows"),
    message:
        "Reading labelled prompts with {wildcards.model}"
    script:
        "../scripts/probe_rows.py"


rule probing:
    """Sparse probes of one SAE beside a random dictionary, raw activations and shuffled labels."""
    input:
        rows="results/probing/{model}/rows.safetensors",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=training_facts,
    output:
        result=f"{PROBING}/probing.json",
    log:
        "results/logs/probing/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/probing/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=codes_mb,
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        probing=CONFIG.probing.model_dump(mode="json"),
        code=code_of("probing"),
    message:
        "Probing {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/probing.py"


rule study_probing:
    """One row per SAE of a study, data set and number of latents."""
    input:
        results=lambda w: expand("results/probing/{sae}/probing.json", sae=study_saes(w)),
    output:
        table="results/{study}_probing.csv",
    log:
        "results/logs/study_probing/{study}.log",
    benchmark:
        "results/benchmarks/study_probing/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=study_saes,
        code=code_of("study_probing"),
    message:
        "Writing results/{wildcards.study}_probing.csv"
    script:
        "../scripts/study_probing.py"
