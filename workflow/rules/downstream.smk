# What stability, probing, absorption, autointerp, SAE Bench, the site and clusters look up: seeds, corpora, sources.


def study_sources(wildcards):
    """What a study's jobs take from a network: models and text, and what evaluations bring along."""
    rows = study_rows(wildcards)
    models = [model for row in rows for model in (row.model, row.judged.model)]
    corpora = [corpus for row in rows for corpus in (*CONFIG.mixes[row.mix].corpora, *row.roles, *row.judged.roles)]
    corpora += [corpus for row in rows for corpus in RETOLD.get(row.sae_id, [])]
    return [
        *(f"results/models/{model}" for model in dict.fromkeys(models)),
        *(
            f"results/corpora/{corpus}/documents.parquet"
            for corpus in dict.fromkeys(corpora)
            if not CONFIG.corpora[corpus].is_planted
        ),
        *(f"results/published/{row.recipe_name}" for row in rows if row.published is not None),
        *(["results/embedder"] if CONFIG.latents.embedder else []),
        *source_input("probing", CONFIG.probing),
    ]


def seeds_in(study, w):
    """SAEs of a study that differ from the SAE of these wildcards in nothing but the seed."""
    start = f"{w.model}/{w.hook}/{w.mix}/{w.recipe}/"
    everyone = [*saes_of(study), *(twin.sae_id for twins in TWINS.get(study, {}).values() for twin in twins.values())]
    rows = [SAES[sae_id] for sae_id in dict.fromkeys(everyone) if sae_id.startswith(start)]
    if not rows:
        raise WorkflowError(f"{start[:-1]} is not in study {study!r}")
    for row in rows:
        if row.recipe != rows[0].recipe:
            raise WorkflowError(
                f"{row.sae_id} is trained otherwise than {rows[0].sae_id}: seeds of one recipe must have the same "
                "overrides to be compared; give one of the two a recipe of its own name"
            )
    return sorted(rows, key=lambda row: row.seed)


def seed_rows(wildcards):
    """SAEs that stability compares: another study's seeds are not trained for it."""
    study_rows(wildcards)
    return seeds_in(wildcards.study, wildcards)


def page_study(wildcards):
    """The study whose seeds the pages of an SAE show: the first with pages that has it, else the first that has it."""
    row = sae_row(wildcards)
    return SITE_SAES.get(row.sae_id, [row.study])[0]


def page_stability(name):
    """Input function: a file of the stability that the pages of an SAE show."""
    return lambda w: f"results/stability/{page_study(w)}/{w.model}/{w.hook}/{w.mix}/{w.recipe}/{name}"


def stability_mb(wildcards, attempt):
    """Weights of all seeds with as many random ones, and all cosines of two dictionaries where they are kept."""
    rows = seed_rows(wildcards)
    n_latents, d_model = rows[0].n_latents, CONFIG.models[wildcards.model].d_model
    cosines = min(n_latents, CONFIG.stability.exact_matching_up_to) ** 2
    return int(attempt * (2000 + (4 * 2 * (len(rows) + 2) * n_latents * d_model + 24 * cosines) / 1e6))


def probing_mb(wildcards, attempt):
    """The model, and the rows of all data sets at all hooks."""
    entry, probing = CONFIG.models[wildcards.model], CONFIG.probing
    n_rows = probing.max_prompts * (113 if probing.datasets is None else len(probing.datasets))
    return int(model_mb(wildcards, attempt) + attempt * 8 * n_rows * entry.d_model * len(entry.hooks) / 1e6)


# Studies that have pages, and their SAEs; a page links to other seeds of its recipe only if they have pages too.
SITE_STUDIES = CONFIG.site.studies or tuple(STUDIES)[:1]
SITE_SAES = {}
for study in SITE_STUDIES:
    for sae_id in saes_of(study):
        SITE_SAES.setdefault(sae_id, []).append(study)


def page_twins(wildcards):
    """What an SAE is beside its twins, if a study with pages gives it some."""
    sae_id = sae_row(wildcards).sae_id
    return [COMPARISON] if any(sae_id in TWINS.get(study, {}) for study in SITE_SAES.get(sae_id, [])) else []


def usefulness_of(study):
    """The usefulness of a study's SAEs, where it asks for it: it needs stages that a study's own table does not."""
    return [f"results/{study}_usefulness.csv"] if CONFIG.studies[study].usefulness else []


def study_usefulness(wildcards):
    """That of a study, for its printed table."""
    return usefulness_of(wildcards.study)


def page_usefulness(wildcards):
    """That of the study whose seeds the pages of an SAE show."""
    return usefulness_of(page_study(wildcards))


def prompted_models(wildcards):
    """Models of a study's SAEs, each once."""
    return list(dict.fromkeys(row.model for row in study_rows(wildcards)))


def prompted_saes(wildcards):
    """SAEs of a study, by model as `prompted_models` has them: id, hook that is read, and the way to its pages."""
    saes = [SAES[sae_id] for sae_id in study_saes(wildcards)]
    return [
        (row.sae_id, row.hook, f"../../atlas/saes/{row.sae_id}" if row.sae_id in SITE_SAES else None) for row in saes
    ]


def label_file(name):
    """A file of an SAE's labels, if the pages have labels."""
    return lambda wildcards: [f"results/autointerp/{sae_row(wildcards).sae_id}/{name}"] if CONFIG.site.labels else []


def effect_files(wildcards):
    """Effects of an SAE's latents, if the pages have them and its model predicts next tokens."""
    shown = CONFIG.site.effects and CONFIG.models[wildcards.model].objective == "causal_lm"
    names = ("effects", "doses", "tokens", "continuations")
    return [f"results/effects/{sae_row(wildcards).sae_id}/{name}.parquet" for name in names] if shown else []


def sae_bench_shards(wildcards):
    """Evaluation shards of the corpus that the SAE was trained on, for its held-out documents."""
    return shard_paths(wildcards.model, sae_row(wildcards).in_sample_corpus, "eval")


def sae_bench_mb(wildcards, attempt):
    """The model in float32 twice, as transformers and TransformerLens hold it, and ten times a batch's logits."""
    row, bench = CONFIG.models[wildcards.model], CONFIG.sae_bench
    logits = 4 * 50_000 * bench.batch_contexts * row.harvest.context_length
    return int(attempt * (3000 + (8 * SIZES[wildcards.model].weights + 10 * logits) / 1e6))
