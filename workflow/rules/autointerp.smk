# Auto-interpretation: codes + model + sentence encoder
#                          -> results/autointerp/<sae id>/
#                             {labels.parquet, scores.parquet, answers.parquet, tokens.parquet, autointerp.json}
#                      those + latents.parquet -> results/autointerp/<sae id>/{latents.parquet, told.json}: each latent
#                             with its outcome, and of how many something tells
#                      those of a study's SAEs -> results/<study>_autointerp.csv, results/figures/<study>_autointerp.pdf
#                      codes + embedded windows -> results/latents/<sae id>/planted.json, coherence of planted latents
# Not part of a study's own table: ask for results/<study>_autointerp.csv by name. No language model is needed for it.


rule autointerp:
    """Labels of all latents of an SAE and of its random dictionary, each tested beside its controls."""
    input:
        ["results/environments/delphi/ready"] if CONFIG.autointerp.needs_delphi else [],
        model="results/models/{model}",
        sae=SAE_PAIR,
        train_shards=training_facts,
        codes=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/{{corpus}}.h5", corpus=autointerp_corpora(w)),
        random_codes=lambda w: expand(
            f"results/codes/{sae_row(w).sae_id}/random/{{corpus}}.h5", corpus=autointerp_corpora(w)
        ),
        embedder=[] if CONFIG.latents.embedder is None else ["results/embedder"],
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
        codes_by=autointerp_corpora,
        random_codes_by=autointerp_corpora,
        settings=CONFIG.autointerp.model_dump(mode="json"),
        bootstrap_samples=CONFIG.evaluation.bootstrap_samples,
        delphi=f"{RESULTS}/environments/delphi/bin/python" if CONFIG.autointerp.needs_delphi else None,
        replies=f"{RESULTS}/replies",
        call=function("atlas.autointerp.run.run_autointerp"),
        note=lambda w: str(autointerp_cost(w)),
    message:
        "Labelling {wildcards.recipe}, {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}: {params.note}"
    script:
        "../scripts/call.py"


rule planted_coherence:
    """Coherence of latents whose meaning is known, planted in the evaluation text as dense as the SAE's own."""
    input:
        model="results/models/{model}",
        sae=SAE_PAIR,
        codes=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/{{corpus}}.h5", corpus=ROLES[sae_row(w).sae_id]),
        embedder=[] if CONFIG.latents.embedder is None else ["results/embedder"],
        windows=lambda w: [
            f"results/windows/{w.model}/{corpus}.h5" for corpus in ROLES[sae_row(w).sae_id] if CONFIG.latents.embedder
        ],
    output:
        target=f"{LATENTS}/planted.json",
    log:
        "results/logs/planted_coherence/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/planted_coherence/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=codes_mb,
        runtime=lambda w, attempt: 60 * attempt,
    params:
        roles=lambda w: ROLES[sae_row(w).sae_id],
        codes_by=lambda w: list(ROLES[sae_row(w).sae_id]),
        windows_by=lambda w: list(ROLES[sae_row(w).sae_id]) if CONFIG.latents.embedder else [],
        settings=CONFIG.autointerp.model_dump(mode="json", include={"window_tokens", "planted", "seeds"}),
        latents=CONFIG.latents.model_dump(mode="json", exclude={"embedder"}),
        call=function("atlas.autointerp.planted_coherence.write_planted_coherence"),
    message:
        "Coherence of planted latents, {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule latent_outcomes:
    """One row per latent of an SAE: its label, its score, and the regime that it is in."""
    input:
        latents=f"{LATENTS}/latents.parquet",
        labels=rules.autointerp.output.labels,
        scores=rules.autointerp.output.scores,
        tokens=rules.autointerp.output.tokens,
        summary=rules.autointerp.output.summary,
    output:
        target=f"{AUTOINTERP}/latents.parquet",
        told=f"{AUTOINTERP}/told.json",
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
        settings=CONFIG.autointerp.model_dump(mode="json", include={"explainers", "scorers", "seeds", "client"}),
        call=function("atlas.autointerp.outcome.write_latent_outcomes"),
    message:
        "Outcomes of latents of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"
