# Finance: SAE + rows and codes of financial text, in three templates
#                    -> results/finance/<study>/<sae id>/{finance.json, draws.parquet}
#                    -> results/<study>_finance.csv, results/figures/<study>.{pdf,png}


rule finance:
    """What one SAE sees in financial text: by kind of token, by latent, in another template, and against general text."""
    input:
        model="results/models/{model}",
        weights=SAE_FILES["weights"],
        config=SAE_FILES["config"],
        train_shards=training_facts,
        apart=lambda w: apart(w.mix, [finance_section(w).rewritten, finance_section(w).moved]),
        plain=finance_shards("corpus"),
        rewritten=finance_shards("rewritten"),
        moved=finance_shards("moved"),
        references=lambda w: f"results/references/{w.model}/{finance_section(w).corpus}.h5",
        codes=finance_codes("corpus"),
        generic_codes=finance_codes("generic"),
        random_codes=finance_codes("corpus", "random/"),
    output:
        result=f"{FINANCE}/finance.json",
        draws=f"{FINANCE}/draws.parquet",
    log:
        "results/logs/finance/{study}/{model}/{hook}/{mix}/{recipe}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/finance/{study}/{model}/{hook}/{mix}/{recipe}/seed-{seed}.tsv"
    wildcard_constraints:
        study=FINANCE_STUDIES,
    conda:
        "../../envs/atlas.yaml"
    threads: model_threads
    resources:
        mem_mb=lambda w, attempt: model_mb(w, attempt) + codes_mb(w, attempt),
        runtime=lambda w, attempt: 120 * attempt,
        gpu=1,
    params:
        finance=lambda w: finance_section(w).model_dump(mode="json"),
        evaluation=CONFIG.evaluation.model_dump(mode="json", include={"bootstrap_samples", "min_loss_gap"}),
        sizes=lambda w: {
            "min_tokens": CONFIG.latents.min_tokens,
            "batch_contexts": CONFIG.models[w.model].harvest.batch_contexts,
        },
        code=code_of("finance"),
    message:
        "Finance: {wildcards.mix} on {wildcards.model} {wildcards.hook}, seed {wildcards.seed}"
    script:
        "../scripts/finance.py"
