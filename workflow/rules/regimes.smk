# Regimes provoked on purpose: metrics + training text -> results/regimes/<sae id>/<shift or home>.json
#          those of a study's rows -> results/<study>_regimes.csv, results/<study>_confusion.csv, results/figures/<study>.*


rule regime:
    """The outcome of one SAE, its silent latents counted on few, more and all tokens of the training text."""
    input:
        sae=SAE_PAIR,
        metrics=lambda w: judged_metrics(sae_row(w).sae_id, w.shift),
        train_shards=lambda w: training_shards_of(w.mix, judged_place(w).model),
    output:
        target="results/regimes/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.json",
    log:
        "results/logs/regime/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.log",
    benchmark:
        "results/benchmarks/regime/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=codes_mb,
        runtime=encoding_minutes(trained_rows, least=120),
        gpu=1,
    params:
        hook=lambda w: judged_place(w).hook,
        scale=lambda w: judged_place(w).scale,
        corpus=lambda w: next(name for name, role in judged_place(w).roles.items() if role == "in_sample"),
        settings=CONFIG.regimes.model_dump(mode="json"),
        taxonomy=CONFIG.evaluation.taxonomy.model_dump(mode="json"),
        call=function("atlas.regimes.run.run_regime"),
    message:
        "Regime of {wildcards.recipe} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}, {wildcards.shift}"
    script:
        "../scripts/call.py"


rule study_regimes:
    """One row per provoked regime and seed, and how often each was called by its name."""
    input:
        metrics=lambda w: [judged_metrics(row.sae_id, row.shift) for row in regime_rows(w)],
        regimes=lambda w: [f"results/regimes/{row.sae_id}/{row.shift or HOME}.json" for row in regime_rows(w)],
    output:
        table="results/{study}_regimes.csv",
        confusion="results/{study}_confusion.csv",
    log:
        "results/logs/study_regimes/{study}.log",
    benchmark:
        "results/benchmarks/study_regimes/{study}.tsv"
    wildcard_constraints:
        study=REGIME_STUDIES,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=lambda w: [
            {"sae_id": row.sae_id, "shift": row.shift, "intended": row.intended, "cause": row.cause}
            for row in regime_rows(w)
        ],
        call=function("atlas.studies.regimes.write_regimes"),
    message:
        "Writing results/{wildcards.study}_regimes.csv"
    script:
        "../scripts/call.py"


rule regimes_figure:
    """Every cause a line: what it does to reconstruction, dead latents, redundancy and density, and the verdict."""
    input:
        table=rules.study_regimes.output.table,
    output:
        targets=[
            report(
                "results/figures/{study}.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "figure"},
            ),
            "results/figures/{study}.png",
            "results/figures/{study}.txt",
        ],
    log:
        "results/logs/regimes_figure/{study}.log",
    benchmark:
        "results/benchmarks/regimes_figure/{study}.tsv"
    wildcard_constraints:
        study=REGIME_STUDIES,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        taxonomy=CONFIG.evaluation.taxonomy.model_dump(mode="json"),
        call=function("atlas.figures.regimes.draw_regimes"),
    message:
        "Drawing results/figures/{wildcards.study}.pdf"
    script:
        "../scripts/call.py"


# A study of causes has one line per cause: its figure has no layers along x.
ruleorder: regimes_figure > study_figure
