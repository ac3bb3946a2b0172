# What jobs ask for: memory, time, disk and threads, from sizes and budgets of the configuration and the attempt.
# The formulas and their constants are in workflow/atlas/studies/cost.py; here they meet the wildcards.
from atlas.config.partitions import check_partitions
from atlas.gpu_lease import visible_gpus
from atlas.studies import cost

# Sizes by model: looked up once per job and resource.
SIZES = {
    name: cost.ModelSize(entry.n_layers, entry.d_model, 2 if entry.dtype == "bfloat16" else 4)
    for name, entry in CONFIG.models.items()
}
# A large model runs on a GPU and prepares its batches on these; small ones run one per core.
LARGE_MODEL_THREADS = 8


def tried_again(times):
    """`retries` of a rule. A job on a cluster runs Snakemake twice more inside its allocation, where the rule's number
    would hold again and hide that of the command line: with 3, a training that cannot succeed was tried 20 times."""
    return times if workflow.is_main_process else 0


def model_mb(wildcards, attempt):
    """Memory of a job that runs the model."""
    return cost.model_memory_mb(SIZES[wildcards.model], attempt)


def prompts_mb(wildcards, attempt):
    """The largest model of a study, and the largest of its SAEs."""
    rows = study_rows(wildcards)
    values = max(cost.dictionary_values(row.n_latents, CONFIG.models[row.model].d_model) for row in rows)
    return max(cost.model_memory_mb(SIZES[row.model], attempt) for row in rows) + int(attempt * 2 * 4 * values / 1e6)


def model_threads(wildcards):
    """Small models run one per core, large ones share the machine's memory and get its cores."""
    return LARGE_MODEL_THREADS if SIZES[wildcards.model].is_large else 1


def model_disk_mb(wildcards, attempt):
    """The weights as they come, and as safetensors."""
    return int(attempt * (1000 + 3 * SIZES[wildcards.model].bytes / 1e6))


def model_minutes(wildcards, attempt):
    """Time to fetch the weights and write them."""
    return cost.minutes(0, 1, 10 * SIZES[wildcards.model].bytes, attempt)


def packed_tokens(wildcards):
    """Tokens of one token file, all splits."""
    harvest = harvest_of(wildcards.model, wildcards.corpus)
    return sum(harvest.tokens(split) for split in splits_used(wildcards.model, wildcards.corpus))


def packing_mb(wildcards, attempt):
    """Contexts are written block by block."""
    return cost.packing_memory_mb(attempt)


def packing_minutes(wildcards, attempt):
    """Text to tokens to contexts."""
    return cost.packing_minutes(packed_tokens(wildcards), attempt)


def harvest_mb(wildcards, attempt):
    """The model, and what the rows of a shard are of."""
    tokens = max(harvest_of(wildcards.model, wildcards.corpus).shard_sizes(wildcards.split))
    return cost.model_memory_mb(SIZES[wildcards.model], attempt, cost.SHARD_BYTES * tokens)


def audit_mb(wildcards, attempt):
    """The model and a few contexts."""
    return cost.model_memory_mb(SIZES[wildcards.model], attempt)


def audit_minutes(wildcards, attempt):
    """The weights are read, and run a few times on little text."""
    return 20 * attempt + cost.minutes(0, 1, SIZES[wildcards.model].bytes, attempt)


def shard_tokens(wildcards):
    """Tokens of one activation file: a shard, or all there are."""
    harvest = harvest_of(wildcards.model, wildcards.corpus)
    return min(harvest.shard_tokens, harvest.tokens(wildcards.split))


def shard_bytes(wildcards):
    """Bytes of one activation file."""
    model = CONFIG.models[wildcards.model]
    value = 4 if model.harvest.storage_dtype == "float32" else 2
    return cost.store_bytes(shard_tokens(wildcards), model.d_model, len(model.hooks), value)


def harvest_minutes(wildcards, attempt):
    """One forward pass over the shard, its rows written twice (shuffled from a scratch file) and read for checksums."""
    size = SIZES[wildcards.model]
    return cost.minutes(
        size.forward(shard_tokens(wildcards)), size.flops, size.bytes + 3 * shard_bytes(wildcards), attempt
    )


def harvest_disk_mb(wildcards, attempt):
    """The file, and its temporary one beside it."""
    return int(attempt * (100 + 2 * shard_bytes(wildcards) / 1e6))


def facts_mb(wildcards, attempt):
    """Columns and norms of one shard, and their file as it is built in memory."""
    hooks = len(CONFIG.models[wildcards.model].hooks)
    tokens = max(harvest_of(wildcards.model, wildcards.corpus).shard_sizes("train"))
    return cost.megabytes(3 * cost.facts_bytes(tokens, hooks), attempt)


def facts_shard(wildcards):
    """Bytes of the rows of one training shard at all hooks."""
    model, harvest = CONFIG.models[wildcards.model], harvest_of(wildcards.model, wildcards.corpus)
    value = 4 if harvest.storage_dtype == "float32" else 2
    return cost.store_bytes(max(harvest.shard_sizes("train")), model.d_model, len(model.hooks), value)


def harvest_facts_mb(wildcards, attempt):
    """The model, what the rows of the shard are of, and the rows as far as windows may be in memory."""
    harvest = harvest_of(wildcards.model, wildcards.corpus)
    columns = cost.SHARD_BYTES * max(harvest.shard_sizes("train"))
    rows = min(harvest.window_memory_mb, facts_shard(wildcards) / 1e6)
    return cost.model_memory_mb(SIZES[wildcards.model], attempt, columns) + int(attempt * 1.5 * rows)


def facts_disk_mb(wildcards, attempt):
    """The rows of the shard, where they do not fit into memory, until its facts are known."""
    return int(attempt * (100 + 1.1 * facts_shard(wildcards) / 1e6))


def facts_minutes(wildcards, attempt):
    """One forward pass over the shard."""
    size = SIZES[wildcards.model]
    tokens = max(harvest_of(wildcards.model, wildcards.corpus).shard_sizes("train"))
    return cost.minutes(size.forward(tokens), size.flops, size.bytes + 3 * facts_shard(wildcards), attempt)


def sae_values(wildcards):
    """Weights of an SAE's encoder and decoder."""
    row = sae_row(wildcards)
    return cost.dictionary_values(row.n_latents, CONFIG.models[row.model].d_model)


def published_values(wildcards):
    """Weights of a published SAE's encoder and decoder."""
    entry = CONFIG.saes[wildcards.sae]
    return cost.dictionary_values(entry.n_latents, CONFIG.models[entry.model].d_model)


def train_tokens(model, mix):
    """Tokens of all training text of a mix."""
    return sum(harvest_of(model, corpus).train_tokens for corpus in CONFIG.mixes[mix].corpora)


def training_mb(wildcards, attempt):
    """Float32 weights, gradients and two Adam moments; what is kept of every row; batches; the libraries."""
    held = cost.TRAINED_BYTES * train_tokens(wildcards.model, wildcards.mix)
    return cost.megabytes(4 * 4 * sae_values(wildcards) + held, attempt)


def publishing_mb(wildcards, attempt):
    """The SAE, other readings of it, and rows of all hooks of its model."""
    model = CONFIG.models[wildcards.model]
    return cost.publishing_memory_mb(sae_values(wildcards), model.d_model, len(model.hooks), attempt)


def training_threads(wildcards):
    """Small dictionaries train one per core: many at once beat one that waits for its threads."""
    return 1 if sae_values(wildcards) < 8e6 else 8


def training_minutes(wildcards, attempt):
    """Planned for a GPU where the model's jobs are, or where the dictionary is large enough to get several cores."""
    recipe, size = sae_row(wildcards).recipe, SIZES[wildcards.model]
    on_gpu = size.is_large or training_threads(wildcards) > 1
    return cost.training_minutes(recipe.n_latents, size.d_model, recipe.steps, recipe.batch_size, on_gpu, attempt)


def training_disk_mb(wildcards, attempt):
    """Two checkpoints of weights and moments, the weights, the curves."""
    return int(attempt * (100 + (2 * 3 + 1) * 4 * sae_values(wildcards) / 1e6))


def codes_mb(wildcards, attempt):
    """Two dictionaries, a block of rows of both with its order, the libraries."""
    return cost.megabytes(1000e6 + 2 * 4 * sae_values(wildcards), attempt)


def references_minutes(wildcards, attempt):
    """The clean pass and two ablated ones for each hook, on the tokens whose loss is compared."""
    size, hooks = SIZES[wildcards.model], len(CONFIG.models[wildcards.model].hooks)
    flop = (1 + 2 * hooks) * size.forward(CONFIG.evaluation.loss_tokens)
    return cost.minutes(flop, size.flops, size.bytes, attempt)


def eval_tokens(place):
    """Held-out tokens of all corpora that an SAE is judged on there."""
    return sum(harvest_of(place.model, corpus).eval_tokens for corpus in place.roles)


def evaluation_mb(wildcards, attempt):
    """The model; the dictionary and a random one; what is kept of every row."""
    place = judged_place(wildcards)
    return cost.evaluation_memory_mb(SIZES[place.model], sae_values(wildcards), eval_tokens(place), attempt)


def evaluation_minutes(wildcards, attempt):
    """Spliced passes under both protocols; every held-out row through the dictionary and the random one beside it; the
    cosines of all pairs of latents, in these two and in the nulls."""
    place = judged_place(wildcards)
    size, rows = SIZES[place.model], eval_tokens(place)
    passes = 4 * len(place.roles) * size.forward(CONFIG.evaluation.loss_tokens)
    encoded = 2.0 * sae_values(wildcards) * rows * (2 + CONFIG.evaluation.null_dictionaries)
    encoded += cost.cosines_flop(
        sae_values(wildcards), sae_row(wildcards).n_latents, CONFIG.evaluation.null_dictionaries
    )
    read = size.bytes + cost.store_bytes(rows, size.d_model, 1)
    return cost.minutes(passes + encoded, size.flops, read, attempt)


def encoding_minutes(rows, least):
    """Resource function: `rows`, of the wildcards, through the dictionary and a random one, and their codes.

    Codes take some 100 latents a row, twice; at `least` so many minutes.
    """

    def needed(wildcards, attempt):
        size, n_rows = SIZES[wildcards.model], rows(wildcards)
        moved = cost.store_bytes(n_rows, size.d_model, 1) + 2 * 100 * 8 * n_rows
        return cost.minutes(2 * 2.0 * sae_values(wildcards) * n_rows, size.flops, moved, attempt, least)

    return needed


def corpus_rows(wildcards):
    """Held-out rows of one corpus."""
    return harvest_of(wildcards.model, wildcards.corpus).eval_tokens


def judged_rows(wildcards):
    """Held-out rows of all corpora that an SAE is judged on at home."""
    return eval_tokens(home(wildcards))


def trained_rows(wildcards):
    """Rows of all training text."""
    return train_tokens(wildcards.model, wildcards.mix)


def check_gpu_limit():
    """Refuse numbers of GPUs that Snakemake would cut down in silence, or that this machine does not have."""
    if not workflow.is_main_process:
        return
    limit = workflow.global_resources.get("gpu")
    if limit.value is None:
        # Without profiles/default, or with --resources for something else, which replaces the profile's.
        if workflow.global_resources.get("_nodes").value is not None:
            return  # jobs are submitted: each gets the GPUs that it asks for
        seen = visible_gpus()
        workflow.register_resource("gpu", len(seen))
        limit = workflow.global_resources.get("gpu")
        where = (
            f"jobs use the {len(seen)} of this machine ({', '.join(seen)})" if seen else "everything runs on the CPU"
        )
        logger.info(f"No number of GPUs is given: {where}; choose with --resources gpu=<number>.")
    for rule, resources in workflow.resource_settings.overwrite_resources.items():
        asked = resources["gpu"].value if "gpu" in resources else 0
        if isinstance(asked, int) and asked > limit.value:
            raise WorkflowError(
                f"--set-resources {rule}:gpu={asked} exceeds --resources gpu={limit.value}: it would run with "
                f"{limit.value}; raise the latter (or 'resources' in the profile), or ask for less"
            )
    if workflow.resource_scopes.is_local("gpu"):
        return  # jobs are submitted to other machines
    seen = visible_gpus(ask_driver=False)
    if seen and limit.value > len(seen):
        raise WorkflowError(
            f"--resources gpu={limit.value}, but this machine shows {len(seen)} GPUs ({', '.join(seen)}); "
            f"use gpu={len(seen)}, or look at CUDA_VISIBLE_DEVICES"
        )
    if seen and limit.value == 0:
        logger.warning(
            f"{len(seen)} GPUs ({', '.join(seen)}) lie idle: everything is computed on the CPU; "
            f"use them with --resources gpu={len(seen)}"
        )


def check_partition_file():
    """Refuse a file of partitions in which the SLURM plugin would read other limits than are meant."""
    if CALL is None or CALL.executor != "slurm":
        return
    path = CALL.slurm_partition_config or os.environ.get("SNAKEMAKE_SLURM_PARTITIONS")
    if path:
        try:
            check_partitions(path)
        except ConfigError as error:
            raise WorkflowError(str(error)) from None


check_gpu_limit()
check_partition_file()
