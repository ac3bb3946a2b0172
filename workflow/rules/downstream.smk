# What stability, probing, absorption, autointerp and the site look up: seeds of a recipe, their corpora, memory.


def seed_rows(wildcards):
    """All SAEs, in any study, that differ from these wildcards in nothing but the seed."""
    w = wildcards
    rows = [row for sae_id, row in SAES.items() if sae_id.startswith(f"{w.model}/{w.hook}/{w.mix}/{w.recipe}/")]
    if not rows:
        raise WorkflowError(f"{w.model}/{w.hook}/{w.mix}/{w.recipe} is in no study")
    for row in rows:
        if row.recipe != rows[0].recipe:
            raise WorkflowError(
                f"{row.sae_id} is trained otherwise than {rows[0].sae_id}: seeds of one recipe must have the same "
                "overrides to be compared; give one of the two a recipe of its own name"
            )
    return sorted(rows, key=lambda row: row.seed)


def in_sample_corpus(row):
    """The corpus of training on whose held-out documents an SAE is judged."""
    return next(corpus for corpus, role in row.roles.items() if role == "in_sample")


def stability_mb(wildcards, attempt):
    """Weights of all seeds with as many random ones, and all cosines of two dictionaries where they are kept."""
    rows = seed_rows(wildcards)
    n_latents, d_model = rows[0].recipe.n_latents, CONFIG.models[wildcards.model].d_model
    cosines = min(n_latents, CONFIG.stability.exact_matching_up_to) ** 2
    return int(attempt * (2000 + (4 * 2 * (len(rows) + 2) * n_latents * d_model + 24 * cosines) / 1e6))


def probing_mb(wildcards, attempt):
    """The model, and the rows of all data sets at all hooks."""
    entry, probing = CONFIG.models[wildcards.model], CONFIG.probing
    n_rows = probing.max_prompts * (113 if probing.datasets is None else len(probing.datasets))
    return int(model_mb(wildcards, attempt) + attempt * 8 * n_rows * entry.d_model * len(entry.hooks) / 1e6)


def autointerp_corpora(wildcards):
    """Evaluation corpora that give examples: those of the configured roles."""
    roles = ROLES[sae_row(wildcards).sae_id]
    return [corpus for corpus, role in roles.items() if role in CONFIG.autointerp.roles]


def autointerp_cost(wildcards):
    """What labelling an SAE asks of a language model at most; a dry run prints it."""
    return labelling_cost(CONFIG.autointerp, sae_row(wildcards).recipe.n_latents)


def study_autointerp_cost(wildcards):
    """The same of all SAEs of a study, as text."""
    rows = STUDIES[wildcards.study]
    return str(sum((labelling_cost(CONFIG.autointerp, row.recipe.n_latents) for row in rows), Cost()))


def client_model(wildcards):
    """The prepared model that answers prompts in the job's own process, if one does."""
    client = CONFIG.autointerp.client
    local = client is not None and client.kind == "transformers"
    return [f"results/models/{client.model}"] if local else []


# Studies that have pages, and their SAEs; a page links to other seeds of its recipe only if they have pages too.
SITE_STUDIES = CONFIG.site.studies or tuple(STUDIES)[:1]
SITE_SAES = {}
for study in SITE_STUDIES:
    for sae_id in saes_of(study):
        SITE_SAES.setdefault(sae_id, []).append(study)


def label_file(name):
    """A file of an SAE's labels, if the pages have labels."""
    return lambda wildcards: [f"results/autointerp/{sae_row(wildcards).sae_id}/{name}"] if CONFIG.site.labels else []
