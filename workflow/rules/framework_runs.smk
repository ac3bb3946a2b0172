# What the rules of the study `frameworks` look up: its runs, their shards, environments and code.
from atlas.config.framework_rows import expand_frameworks
from atlas.config.frameworks import OURS

FRAMEWORK_RUNS = {run.run_id: run for run in expand_frameworks(CONFIG)}
FRAMEWORK_RUN = "results/frameworks/{contender}/{recipe}/seed-{seed}"


def framework_run(wildcards):
    """The run of a path's wildcards."""
    run_id = f"{wildcards.contender}/{wildcards.recipe}/seed-{wildcards.seed}"
    if run_id not in FRAMEWORK_RUNS:
        raise WorkflowError(f"{run_id} is no run of section 'frameworks'; it has: {', '.join(FRAMEWORK_RUNS)}")
    return FRAMEWORK_RUNS[run_id]


def framework_shards(wildcards):
    """Training shards of every corpus in the mix."""
    run = framework_run(wildcards)
    return training_shards_of(run.mix, run.model)


def framework_eval_shards(wildcards):
    """Shards that a run is judged on."""
    run = framework_run(wildcards)
    return shard_paths(run.model, run.corpus, "eval")


def framework_environment(wildcards):
    """The environment of a peer; ours runs in the one that runs this."""
    framework = framework_run(wildcards).framework
    return [] if framework == OURS else f"results/environments/{framework}/ready"


def framework_runner(wildcards):
    """What trains: our trainer, or the runner of a peer."""
    framework = framework_run(wildcards).framework
    return ["atlas/frameworks/ours.py" if framework == OURS else f"peers/train_{framework}.py"]
