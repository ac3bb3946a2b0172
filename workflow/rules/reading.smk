# Blind reading: codes of a study's SAEs -> results/<study>_reading.html, a sheet that people mark
#                                           results/<study>_reading.json, which latent each item of it is
#                results/<study>_reading.csv, what readers say, is a measure: workflow/atlas/blind_reading/study.py.


rule reading_sheet:
    """Latents of a study's SAEs, twins and random dictionaries, shuffled, contexts alone."""
    input:
        models=lambda w: [f"results/models/{SAES[sae].model}" for sae in read_saes(w)],
        folders=lambda w: expand("results/saes/{sae}/sae_weights.safetensors", sae=read_saes(w)),
        codes=lambda w: [f"results/codes/{sae}/{corpus}.h5" for sae in read_saes(w) for corpus in ROLES[sae]],
        random=lambda w: [f"results/codes/{sae}/random/{corpus}.h5" for sae in study_saes(w) for corpus in ROLES[sae]],
    output:
        page="results/{study}_reading.html",
        key="results/{study}_reading.json",
    log:
        "results/logs/reading_sheet/{study}.log",
    benchmark:
        "results/benchmarks/reading_sheet/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=prompts_mb,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        saes=lambda w: list(read_saes(w)),
        corpora=lambda w: [list(ROLES[sae]) for sae in read_saes(w)],
        twins=lambda w: list(read_saes(w).values()),
        settings=CONFIG.reading.model_dump(mode="json", exclude={"votes"}),
        call=function("atlas.blind_reading.sheet.write_reading_sheet"),
    message:
        "Writing results/{wildcards.study}_reading.html"
    script:
        "../scripts/call.py"
