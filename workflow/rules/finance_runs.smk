# What the rules of finance look up: the study's section, its corpora, whom an SAE is compared with.
import re

FINANCE = "results/finance/{study}/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
# (?!) matches none.
FINANCE_STUDIES = "|".join(map(re.escape, CONFIG.finance)) or "(?!)"


def finance_section(wildcards):
    """Section `finance` of a study."""
    return CONFIG.finance[wildcards.study]


def finance_shards(key):
    """Eval shards of the corpus that a section names under a key."""
    return lambda w: shard_paths(w.model, getattr(finance_section(w), key), "eval")


def finance_codes(key, folder=""):
    """Codes of an SAE on the corpus that a section names under a key."""
    return lambda w: f"results/codes/{sae_row(w).sae_id}/{folder}{getattr(finance_section(w), key)}.h5"


def finance_baselines(wildcards):
    """Of each SAE of a study the one of its seed that saw no financial text, None where there is none."""
    rows, corpus = STUDIES[wildcards.study], CONFIG.finance[wildcards.study].corpus
    general = {}
    for row in rows:
        if corpus not in CONFIG.mixes[row.mix].corpora:
            general.setdefault((row.model, row.hook, row.recipe, row.seed), row.sae_id)
    return {row.sae_id: general.get((row.model, row.hook, row.recipe, row.seed)) for row in rows}
