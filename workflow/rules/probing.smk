# Probing: labelled prompts + model -> results/probing/<model>/rows.safetensors, all hooks, once per model
#          those rows + SAE -> results/probing/<sae id>/probing.json
#          those of a study's SAEs -> results/<study>_probing.csv
# Not part of a study's own table: ask for results/<study>_probing.csv by name.

PROBING = "results/probing/{model}/{hook}/{mix}/{recipe}/seed-{seed}"


rule probe_rows:
    """Activations at the last token of every labelled prompt, at all hooks of a model."""
    input:
        "results/audits/{model}.json",
        model="results/models/{model}",
        source=lambda w: source_input("probing", CONFIG.probing),
    output:
        target="results/probing/{model}/rows.safetensors",
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
        lambda w: source_state(CONFIG.probing.source),
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        settings=CONFIG.probing.model_dump(mode="json", include={"source", "datasets", "max_prompts", "max_tokens"}),
        call=function("atlas.probing.prompts.read_prompts"),
    message:
        "Reading labelled prompts with {wildcards.model}"
    script:
        "../scripts/call.py"


rule probing:
    """Sparse probes of one SAE beside a random dictionary, raw activations and shuffled labels."""
    input:
        rows_file="results/probing/{model}/rows.safetensors",
        sae_folder=SAE_PAIR,
        train_shards=training_facts,
    output:
        target=f"{PROBING}/probing.json",
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
        settings=CONFIG.probing.model_dump(mode="json"),
        call=function("atlas.probing.run.run_probing"),
    message:
        "Probing {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"
