# Absorption: words + model -> results/absorption/<model>/rows.safetensors, all hooks, once per model
#             those rows -> results/absorption/<model>/<hook>/<mix>/raw.json, once for all SAEs of a hook and mix
# What is computed from them for each SAE is a stage: workflow/atlas/absorption/study.py.


rule word_rows:
    """Activations at the last token of words whose first letter is looked for, at all hooks of a model."""
    input:
        "results/audits/{model}.json",
        model="results/models/{model}",
    output:
        target="results/absorption/{model}/rows.safetensors",
    log:
        "results/logs/word_rows/{model}.log",
    benchmark:
        "results/benchmarks/word_rows/{model}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=model_mb,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        settings=CONFIG.absorption.model_dump(mode="json", include={"words_per_letter", "examples", "example_sets"}),
        call=function("atlas.absorption.prompts.read_words"),
    message:
        "Reading words with {wildcards.model}"
    script:
        "../scripts/call.py"


rule raw_absorption:
    """First-letter absorption of the raw activation's dimensions at a hook."""
    input:
        rows_file="results/absorption/{model}/rows.safetensors",
        train_shards=training_facts,
    output:
        target="results/absorption/{model}/{hook}/{mix}/raw.json",
    log:
        "results/logs/raw_absorption/{model}/{hook}/{mix}.log",
    benchmark:
        "results/benchmarks/raw_absorption/{model}/{hook}/{mix}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 120 * attempt,
    params:
        settings=CONFIG.absorption.model_dump(mode="json"),
        call=function("atlas.absorption.run.run_raw_absorption"),
    message:
        "Absorption of raw dimensions of {wildcards.model} {wildcards.hook}, mix {wildcards.mix}"
    script:
        "../scripts/call.py"
