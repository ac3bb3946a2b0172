# Twins, trained nulls: metrics and sums of documents of an SAE and its twins -> results/twins/<sae id>/twins.json
#        those, and what later stages say of SAEs and twins -> results/<study>_learnt.csv


rule compare_twins:
    """One SAE beside its twins on the same documents: values, paired differences, and what was learnt."""
    input:
        metrics=METRICS,
        sums=DOCUMENT_SUMS,
        twin_metrics=lambda w: [judged_metrics(twin.sae_id) for twin in twins_of_sae(w).values()],
        twin_sums=lambda w: [
            f"results/metrics/{twin.sae_id}/document_sums.safetensors" for twin in twins_of_sae(w).values()
        ],
    output:
        target=COMPARISON,
    log:
        "results/logs/compare_twins/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/compare_twins/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        twins=lambda w: {kind: twin.sae_id for kind, twin in twins_of_sae(w).items()},
        sae_id="{model}/{hook}/{mix}/{recipe}/seed-{seed}",
        corpora=lambda w: list(TWINNED_ROLES[sae_row(w).sae_id]),
        call=function("atlas.twins.compare.compare_twins"),
    message:
        "Holding {wildcards.recipe} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}, against its twins"
    script:
        "../scripts/call.py"
