# Stability: SAEs of a study that differ in the seed alone, their codes on the in-sample corpus, their metrics
#            -> results/stability/<study>/<model>/<hook>/<mix>/<recipe>/{stability.json, latents.parquet}
#            those of a study's SAEs -> results/<study>_stability.csv
# Not part of a study's own table: ask for results/<study>_stability.csv by name.


rule stability:
    """Partners of every latent in the other seeds, and how alike seeds are beside random dictionaries."""
    input:
        lambda w: [f"results/saes/{row.sae_id}/cfg.json" for row in seed_rows(w)],
        sae=lambda w: [f"results/saes/{row.sae_id}/sae_weights.safetensors" for row in seed_rows(w)],
        codes=lambda w: [f"results/codes/{row.sae_id}/{in_sample_corpus(row)}.h5" for row in seed_rows(w)],
        metrics=lambda w: [f"results/metrics/{row.sae_id}/metrics.json" for row in seed_rows(w)],
    output:
        summary="results/stability/{study}/{model}/{hook}/{mix}/{recipe}/stability.json",
        table="results/stability/{study}/{model}/{hook}/{mix}/{recipe}/latents.parquet",
    log:
        "results/logs/stability/{study}/{model}/{hook}/{mix}/{recipe}.log",
    benchmark:
        "results/benchmarks/stability/{study}/{model}/{hook}/{mix}/{recipe}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=stability_mb,
        runtime=lambda w, attempt: 240 * attempt,
        gpu=1,
    params:
        files_by=lambda w: [row.seed for row in seed_rows(w)],
        corpus=lambda w: in_sample_corpus(seed_rows(w)[0]),
        settings=CONFIG.stability.model_dump(mode="json"),
        call=function("atlas.stability.run.run_stability"),
    message:
        "Stability in {wildcards.study}: {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}"
    script:
        "../scripts/call.py"


rule study_stability:
    """One row per SAE of a study: how much of it comes back with another seed."""
    input:
        summaries=lambda w: [f"results/stability/{w.study}/{Path(sae).parent}/stability.json" for sae in study_saes(w)],
    output:
        table="results/{study}_stability.csv",
    log:
        "results/logs/study_stability/{study}.log",
    benchmark:
        "results/benchmarks/study_stability/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        summaries_by=study_saes,
        call=function("atlas.studies.stability.write_stability_table"),
    message:
        "Writing results/{wildcards.study}_stability.csv"
    script:
        "../scripts/call.py"
