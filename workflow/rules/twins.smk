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
    conda:
        "../../envs/atlas.yaml"
    threads: 1
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


rule study_learnt:
    """One row per SAE of a study and measure, of all stages that it asks for: its value, its twins', the difference."""
    input:
        comparisons=study_comparisons,
        stage_files=lambda w: [stage_file(w.study, stage, sae_id) for stage, sae_id in stages_asked(w)],
    output:
        table="results/{study}_learnt.csv",
    log:
        "results/logs/study_learnt/{study}.log",
    benchmark:
        "results/benchmarks/study_learnt/{study}.tsv"
    wildcard_constraints:
        study=TWIN_STUDIES,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        comparisons_by=lambda w: list(TWINS[w.study]),
        twins=twin_ids,
        corpora=study_corpora,
        stages=lambda w: list(CONFIG.studies[w.study].twin_stages),
        asked=lambda w: [list(asked) for asked in stages_asked(w)],
        call=function("atlas.studies.learnt.write_learnt"),
    message:
        "Writing results/{wildcards.study}_learnt.csv"
    script:
        "../scripts/call.py"
