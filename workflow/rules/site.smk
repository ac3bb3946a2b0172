# The atlas: results, codes and labels of an SAE -> results/atlas/saes/<sae id>/ (its page, and one for each latent)
#            those of the SAEs of site.studies -> results/atlas/index.html; open it in a browser, no server is needed.
#            codes of an SAE -> results/neuronpedia/<sae id>/batch-<n>.json
# Not part of `all`: ask for results/atlas/index.html by name.


rule sae_pages:
    """Pages of one SAE: health beside nulls, the table of its latents, and every latent with its contexts and label."""
    input:
        model="results/models/{model}",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        card=SAE_FILES["card"],
        curves=lambda w: expand(SAE_FILES["curves"], **w) if sae_row(w).published is None else [],
        metrics=METRICS,
        codes=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/{{corpus}}.h5", corpus=ROLES[sae_row(w).sae_id]),
        random=lambda w: (
            expand(f"results/codes/{sae_row(w).sae_id}/random/{{corpus}}.h5", corpus=ROLES[sae_row(w).sae_id])
            if CONFIG.site.random_latents
            else []
        ),
        latents=rules.latents.output.table,
        summary=rules.latents.output.summary,
        stability=page_stability("stability.json"),
        partners=page_stability("latents.parquet"),
        labels=label_file("latents.parquet"),
        answers=label_file("answers.parquet"),
        label_summary=label_file("autointerp.json"),
        all_labels=label_file("labels.parquet"),
        scores=label_file("scores.parquet"),
        tokens=label_file("tokens.parquet"),
        twins=page_twins,
        usefulness=page_usefulness,
        effects=effect_files,
    output:
        folder=directory("results/atlas/saes/{model}/{hook}/{mix}/{recipe}/seed-{seed}"),
    log:
        "results/logs/sae_pages/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/sae_pages/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 120 * attempt,
    params:
        corpora=lambda w: list(ROLES[sae_row(w).sae_id]),
        studies=lambda w: SITE_SAES.get(sae_row(w).sae_id, []),
        seeds=lambda w: [row.seed for row in seeds_in(page_study(w), w) if row.sae_id in SITE_SAES],
        site=CONFIG.site.model_dump(mode="json", exclude={"studies"}),
        taxonomy=CONFIG.evaluation.taxonomy.model_dump(),
        deciding=[CONFIG.autointerp.explainers[0], CONFIG.autointerp.label_scorers, CONFIG.autointerp.seeds[0]],
        code=code_of("sae_pages"),
    message:
        "Pages of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, mix {wildcards.mix}, seed {wildcards.seed}"
    script:
        "../scripts/sae_pages.py"


rule neuronpedia:
    """Latents of one SAE as Neuronpedia's batches: contexts, logits, activations; results/neuronpedia/<sae id>/."""
    input:
        model="results/models/{model}",
        sae=SAE_PAIR,
        codes=lambda w: expand(f"results/codes/{sae_row(w).sae_id}/{{corpus}}.h5", corpus=ROLES[sae_row(w).sae_id]),
        latents=f"{LATENTS}/latents.parquet",
        partners=page_stability("latents.parquet"),
    output:
        target=directory("results/neuronpedia/{model}/{hook}/{mix}/{recipe}/seed-{seed}"),
    log:
        "results/logs/neuronpedia/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/neuronpedia/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 120 * attempt,
    params:
        codes_by=lambda w: list(ROLES[sae_row(w).sae_id]),
        studies=[],
        seeds=[],
        settings=CONFIG.site.model_dump(mode="json", exclude={"studies"}),
        call=function("atlas.site.run.export_neuronpedia"),
    message:
        "Neuronpedia batches of {wildcards.recipe}, {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/call.py"


rule site_index:
    """The first page, from which all others are reached, and what they share."""
    input:
        expand("results/atlas/saes/{sae}", sae=SITE_SAES),
    output:
        directory("results/atlas/assets"),
        target="results/atlas/index.html",
    log:
        "results/logs/site_index.log",
    benchmark:
        "results/benchmarks/site_index.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        studies={study: saes_of(study) for study in SITE_STUDIES},
        call=function("atlas.site.index.build_index"),
    message:
        "Writing results/atlas/index.html"
    script:
        "../scripts/call.py"


rule prompts:
    """Sentences of the reader's: the latents of a study's SAEs that fire on them, token by token."""
    input:
        source=lambda w: beside_results(CONFIG.prompts[w.name].file),
        models=lambda w: expand("results/models/{model}", model=prompted_models(w)),
        weights=lambda w: expand("results/saes/{sae}/sae_weights.safetensors", sae=study_saes(w)),
        config=lambda w: expand("results/saes/{sae}/cfg.json", sae=study_saes(w)),
    output:
        page="results/prompts/{study}/{name}.html",
    log:
        "results/logs/prompts/{study}/{name}.log",
    benchmark:
        "results/benchmarks/prompts/{study}/{name}.tsv"
    wildcard_constraints:
        name="[A-Za-z0-9._-]+",
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=prompts_mb,
        runtime=lambda w, attempt: 30 * attempt,
    params:
        models=prompted_models,
        saes=prompted_saes,
        settings=lambda w: CONFIG.prompts[w.name].model_dump(mode="json"),
        latents_per_sae=CONFIG.site.latents_per_sae,
        code=code_of("prompts"),
    message:
        "Writing results/prompts/{wildcards.study}/{wildcards.name}.html"
    script:
        "../scripts/prompts.py"
