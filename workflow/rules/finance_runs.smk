# What the rules of finance look up: the study's section, its corpora, whom an SAE is compared with.

FINANCE = "results/finance/{study}/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
FINANCE_STUDIES = only(CONFIG.finance)


def finance_section(wildcards):
    """Section `finance` of a study."""
    return CONFIG.finance[wildcards.study]


def finance_shards(key):
    """Eval shards of the corpus that a section names under a key."""
    return lambda w: shard_paths(w.model, getattr(finance_section(w), key), "eval")


def finance_codes(key, folder=""):
    """Codes of an SAE on the corpus that a section names under a key."""
    return lambda w: f"results/codes/{sae_row(w).sae_id}/{folder}{getattr(finance_section(w), key)}.h5"
