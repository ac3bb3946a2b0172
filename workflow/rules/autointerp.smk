# Auto-interpretation: codes + model + sentence encoder
#                          -> results/autointerp/<sae id>/
#                             {labels.parquet, scores.parquet, answers.parquet, tokens.parquet, autointerp.json}
#                      those + latents.parquet -> results/autointerp/<sae id>/latents.parquet, each latent with its outcome
#                      those of a study's SAEs -> results/<study>_autointerp.csv, results/figures/<study>_autointerp.pdf
# Not part of a study's own table: ask for results/<study>_autointerp.csv by name. No language model is needed for it.


rule autointerp:
    """Labels of all latents of an SAE and of its random dictionary, each tested beside its controls."""
    input:
        model="results/models/{model}",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=training_facts,
        codes=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/{{corpus}}.h5", corpus=autointerp_corpora(w)),
        random=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/random/{{corpus}}.h5", corpus=autointerp_corpora(w)),
        embedder=[] if CONFIG.latents.embedder is None else ["results/embedder"],
        delphi=["results/environments/delphi/ready"] if CONFIG.autointerp.needs_delphi else [],
        client_model=client_model,
    output:
        labels=f"{AUTOINTERP}/labels.parquet",
        scores=f"{AUTOINTERP}/scores.parquet",
        answers=f"{AUTOINTERP}/answers.parquet",
        tokens=f"{AUTOINTERP}/tokens.parquet",
        summary=f"{AUTOINTERP}/autointerp.json",
    log:
        "results/logs/autointerp/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/autointerp/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=lambda w, attempt: model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 240 * attempt,
        # Without a language model in the job itself a GPU would wait for a server, or for the lexical labels.
        gpu=lambda w: int(bool(client_model(w))),
    params:
        corpora=autointerp_corpora,
        autointerp=CONFIG.autointerp.model_dump(mode="json"),
        bootstrap_samples=CONFIG.evaluation.bootstrap_samples,
        replies=f"{RESULTS}/replies",
        code=code_of("autointerp"),
        asks=lambda w: str(autointerp_cost(w)),
    message:
        "Labelling {wildcards.recipe}, {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}: {params.asks}"
    script:
        "../scripts/autointerp.py"


rule latent_outcomes:
    """One row per latent of an SAE: its label, its score, and the regime that it is in."""
    input:
        latents=rules.latents.output.table,
        labels=rules.autointerp.output.labels,
        scores=rules.autointerp.output.scores,
        tokens=rules.autointerp.output.tokens,
    output:
        table=f"{AUTOINTERP}/latents.parquet",
    log:
        "results/logs/latent_outcomes/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/latent_outcomes/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=lambda w, attempt: 20 * attempt,
    params:
        autointerp=CONFIG.autointerp.model_dump(mode="json", include={"explainers", "scorers", "seeds", "client"}),
        code=code_of("latent_outcomes"),
    message:
        "Outcomes of latents of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/latent_outcomes.py"


rule study_autointerp:
    """One row per SAE, dictionary, explainer, scorer and kind of negatives: score beside controls, labels that repeat."""
    input:
        summaries=lambda w: expand("results/autointerp/{sae}/autointerp.json", sae=study_saes(w)),
        latents=lambda w: expand("results/autointerp/{sae}/latents.parquet", sae=study_saes(w)),
        metrics=study_metrics,
    output:
        table="results/{study}_autointerp.csv",
    log:
        "results/logs/study_autointerp/{study}.log",
    benchmark:
        "results/benchmarks/study_autointerp/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        corpora=lambda w: {row.sae_id: in_sample_corpus(row) for row in STUDIES[w.study]},
        asks=study_autointerp_cost,
        code=code_of("study_autointerp"),
    message:
        "Writing results/{wildcards.study}_autointerp.csv; labelling {params.asks}"
    script:
        "../scripts/study_autointerp.py"


rule autointerp_figure:
    """Repetition of labels and their scores against redundancy and against FVU, with rank correlations."""
    input:
        table=rules.study_autointerp.output.table,
    output:
        pdf=report(
            "results/figures/{study}_autointerp.pdf",
            category="Studies",
            caption="../report/figure.rst",
            labels={"study": "{study}", "kind": "labels"},
        ),
        png="results/figures/{study}_autointerp.png",
        caption="results/figures/{study}_autointerp.txt",
    log:
        "results/logs/autointerp_figure/{study}.log",
    benchmark:
        "results/benchmarks/autointerp_figure/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_of("autointerp_figure"),
    message:
        "Drawing results/figures/{wildcards.study}_autointerp.pdf"
    script:
        "../scripts/autointerp_figure.py"
