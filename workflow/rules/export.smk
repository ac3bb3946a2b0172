# Exports: a trained SAE -> results/exports/<format>/<sae>/ (files of a peer's format, export.json) -> check.json


rule peer_environment:
    """A virtual environment of its own for a peer tool, from pinned requirements: results/environments/<peer>/."""
    input:
        requirements="envs/peers/{peer}.txt",
    output:
        ready="results/environments/{peer}/ready",
    log:
        "results/logs/peer_environment/{peer}.log",
    benchmark:
        "results/benchmarks/peer_environment/{peer}.tsv"
    retries: 1
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    message:
        "Installing {wildcards.peer} in an environment of its own"
    script:
        "../scripts/peer_environment.py"
