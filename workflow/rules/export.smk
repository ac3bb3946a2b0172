# Exports: a trained SAE -> results/exports/<format>/<sae>/ (a peer's files, export.json) -> check.json
#
# No study needs them: ask for results/exports/<format>/<sae>/export.json, or for check.json, which also has the peer
# load the export in an environment of its own and compares. Formats: docs/exports.md.
from atlas.export.layout import FILES, READERS, files_of

EXPORT = "results/exports/{format}/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
EXPORT_OF = {name: EXPORT.replace("{format}", name) for name in FILES}


rule peer_environment:
    """A virtual environment of its own for a peer tool, from pinned requirements: results/environments/<peer>/."""
    input:
        requirements=beside_results(f"{ENVS}/peers/{{peer}}.txt"),
    output:
        folder="results/environments/{peer}/ready",
    log:
        "results/logs/peer_environment/{peer}.log",
    benchmark:
        "results/benchmarks/peer_environment/{peer}.tsv"
    retries: tried_again(1)
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        call=function("atlas.export.environments.build_environment"),
    message:
        "Installing {wildcards.peer} in an environment of its own"
    script:
        "../scripts/call.py"


for export_format in FILES:

    rule:
        name:
            f"export_{export_format}"
        input:
            sae_folder=[*SAE_PAIR, SAE_FILES["card"]],
        output:
            [f"{EXPORT_OF[export_format]}/{file}" for file in files_of(export_format, "{hook}")],
            folder=f"{EXPORT_OF[export_format]}/export.json",
        log:
            f"results/logs/export_{export_format}/{{model}}/{{hook}}/{{mix}}/{{recipe}}/seed-{{seed}}.log",
        benchmark:
            f"results/benchmarks/export_{export_format}/{{model}}/{{hook}}/{{mix}}/{{recipe}}/seed-{{seed}}.tsv"
        conda:
            "../../envs/atlas.yaml"
        threads: 1
        resources:
            mem_mb=training_mb,
            runtime=30,
        params:
            format_name=export_format,
            call=function("atlas.export.formats.export_sae"),
        message:
            f"Exporting {{wildcards.recipe}} on {{wildcards.model}} {{wildcards.hook}} for {export_format}"
        script:
            "../scripts/call.py"


rule export_check:
    """The peer's own loader reads the export, and its latents and reconstructions are ours."""
    input:
        lambda w: f"results/environments/{READERS[w.format]}/ready",
        sae_folder=[*SAE_PAIR, SAE_FILES["card"]],
        folder=f"{EXPORT}/export.json",
    output:
        target=f"{EXPORT}/check.json",
    log:
        "results/logs/export_check/{format}/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/export_check/{format}/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: training_mb(w, attempt) + 2000,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        format_name="{format}",
        python=lambda w: f"{RESULTS}/environments/{READERS[w.format]}/bin/python",
        call=function("atlas.export.check.check_export"),
    message:
        "Checking the {wildcards.format} export of {wildcards.recipe} on {wildcards.model} {wildcards.hook}"
    script:
        "../scripts/call.py"
