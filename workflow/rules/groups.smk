# What the jobs of streamed training look up: the SAEs of each group, their files and what they ask for.
from atlas.config.streams import sae_bytes, stream_groups

GROUPS = stream_groups(CONFIG, SAES.values())


class SaeWildcards:
    """The wildcards that an SAE has where a job of its own trains it."""

    def __init__(self, row):
        own = SaeId.parse(row.sae_id)
        self.model, self.hook, self.mix, self.recipe, self.seed = (
            own.model,
            str(own.hooks),
            own.mix,
            own.recipe,
            str(own.seed),
        )


def group_files(group, kind):
    """A file of every SAE of a group."""
    return [SAE_FILES[kind].format(**vars(SaeWildcards(row))) for row in group.rows]


def group_facts(group):
    """Facts of the corpora of a group."""
    return [path for corpus in group.corpora for path in facts_paths(group.model, corpus)]


def group_apart(group):
    """Proofs that evaluation text is apart, of all SAEs of a group."""
    return list(dict.fromkeys(path for row in group.rows for path in apart(row.mix, row.roles)))


def group_monitors(group):
    """Eval shards of every corpus that any SAE of a group is watched on."""
    watched = dict.fromkeys(corpus for row in group.rows for corpus in watched_corpora(row.roles).values())
    return [path for corpus in watched for path in shard_paths(group.model, corpus, "eval")]


def group_members(group):
    """What the job has to know of each SAE, in the order of the outputs."""
    return [
        {
            "sae_id": row.sae_id,
            "hook": SaeWildcards(row).hook,
            "names": {"model": row.model, "mix": row.mix, "recipe": row.recipe_name},
            "seed": row.seed,
            "mix": CONFIG.mixes[row.mix].model_dump(mode="json"),
            "recipe": row.recipe.model_dump(mode="json"),
            "roles": row.roles,
            "monitors": watched_corpora(row.roles),
            "apart": apart(row.mix, row.roles),
            "threads": training_threads(SaeWildcards(row)),
        }
        for row in group.rows
    ]


def group_threads(group):
    """As many as its model or any of its SAEs gets in a job of its own."""
    return max(model_threads(group), *(training_threads(SaeWildcards(row)) for row in group.rows))


def group_gpus(group):
    """One GPU, or one for the model and one for the SAEs."""
    return 2 if CONFIG.models[group.model].harvest.sae_gpu else 1


def check_group_gpus():
    """Refuse fewer GPUs than a group asks for: Snakemake would cut its number down in silence."""
    limit = workflow.global_resources.get("gpu").value if "gpu" in workflow.global_resources else None
    for group in GROUPS:
        if workflow.is_main_process and limit and limit < group_gpus(group):
            raise WorkflowError(
                f"models.{group.model}.harvest.sae_gpu asks for {group_gpus(group)} GPUs, --resources gpu={limit} would "
                "cut it down; raise the latter (or 'resources' in the profile), or set sae_gpu to false"
            )


def group_tokens(group):
    """Tokens of training text that pass through the model."""
    return sum(harvest_of(group.model, corpus).train_tokens for corpus in group.corpora)


def group_window_bytes(group):
    """Rows of all training text at the hooks of a group, of which windows are a part."""
    model = CONFIG.models[group.model]
    hooks = {hook for row in group.rows for hook in (row.hook, row.target_hook) if hook}
    return cost.store_bytes(group_tokens(group), model.d_model, len(hooks), SIZES[group.model].bytes_per_value)


def group_mb(group):
    """Resource function: the model, columns of all its corpora, the SAEs, and windows as far as they may be in memory."""

    def needed(wildcards, attempt):
        d_model, harvest = CONFIG.models[group.model].d_model, CONFIG.models[group.model].harvest
        saes = sum(sae_bytes(row, d_model) for row in group.rows) / 1e6
        windows = min(harvest.window_memory_mb, group_window_bytes(group) / 1e6)
        columns = cost.STREAMED_BYTES * group_tokens(group)
        return cost.model_memory_mb(SIZES[group.model], attempt, columns) + int(attempt * (saes + windows))

    return needed


def group_minutes(group):
    """Resource function: one pass over all text, and every SAE's updates."""

    def needed(wildcards, attempt):
        size, on_gpu = SIZES[group.model], group_threads(group) > 1
        trainings = [(row.recipe.n_latents, row.recipe.steps, row.recipe.batch_size) for row in group.rows]
        return cost.stream_minutes(size, group_tokens(group), trainings, on_gpu, attempt)

    return needed


def group_disk_mb(group):
    """Resource function: windows beyond memory, two of each corpus at most unless shares change; checkpoints, weights."""

    def needed(wildcards, attempt):
        harvest = CONFIG.models[group.model].harvest
        shares = [
            min(1.0, 2 * harvest.window_shards / harvest_of(group.model, corpus).n_shards("train"))
            for corpus in group.corpora
        ]
        windows = max(0.0, max(shares) * group_window_bytes(group) / 1e6 - harvest.window_memory_mb)
        return windows * attempt + sum(training_disk_mb(SaeWildcards(row), attempt) for row in group.rows)

    return lambda wildcards, attempt: int(needed(wildcards, attempt))


check_group_gpus()
