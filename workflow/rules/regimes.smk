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
