# Stability: SAEs of a study that differ in the seed alone, their codes on the in-sample corpus, their metrics
#            -> results/stability/<study>/<model>/<hook>/<mix>/<recipe>/{stability.json, latents.parquet}
#            those of a study's SAEs -> results/<study>_stability.csv
# Not part of a study's own table: ask for results/<study>_stability.csv by name.


rule stability:
    """Partners of every latent in the other seeds, and how alike seeds are beside random dictionaries."""
    input:
        lambda w: [f"results/saes/{row.sae_id}/cfg.json" for row in seed_rows(w)],
        sae=lambda w: [f"results/saes/{row.sae_id}/sae_weights.safetensors" for row in seed_rows(w)],
        codes=lambda w: [f"results/codes/{row.sae_id}/{row.in_sample_corpus}.h5" for row in seed_rows(w)],
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
        corpus=lambda w: seed_rows(w)[0].in_sample_corpus,
        settings=CONFIG.stability.model_dump(mode="json"),
        call=function("atlas.stability.run.run_stability"),
    message:
        "Stability in {wildcards.study}: {wildcards.recipe} on {wildcards.model} {wildcards.hook}, mix {wildcards.mix}"
    script:
        "../scripts/call.py"
