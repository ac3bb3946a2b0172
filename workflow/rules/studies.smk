# Studies: metrics of a study's SAEs, beside the published rows -> results/<study>.csv


rule study_table:
    """One tidy row per SAE and evaluation corpus; columns are documented in docs/metrics.md."""
    input:
        metrics=study_metrics,
    output:
        table="results/{study}.csv",
    log:
        "results/logs/study_table/{study}.log",
    benchmark:
        "results/benchmarks/study_table/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=lambda w: [row.sae_id for row in STUDIES[w.study]],
        roles=lambda w: STUDIES[w.study][0].roles,
        published=lambda w: CONFIG.studies[w.study].published,
        code=CODE["studies"],
    message:
        "Writing results/{wildcards.study}.csv"
    script:
        "../scripts/study_table.py"
