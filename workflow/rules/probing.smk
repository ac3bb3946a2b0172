# Probing: labelled prompts + model -> results/probing/<model>/rows.safetensors, all hooks, once per model
# What is computed from them for each SAE is a stage: workflow/atlas/probing/study.py, workflow/atlas/concepts/study.py.


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
