# What jobs ask for: memory, time, disk and threads, from sizes and budgets of the configuration and the attempt.
# The formulas and their constants are in workflow/atlas/studies/cost.py; here they meet the wildcards.
from atlas.gpu_lease import visible_gpus
from atlas.studies import cost

# Sizes by model: looked up once per job and resource.
SIZES = {
    name: cost.ModelSize(entry.n_layers, entry.d_model, 2 if entry.dtype == "bfloat16" else 4)
    for name, entry in CONFIG.models.items()
}
# A large model runs on a GPU and prepares its batches on these; small ones run one per core.
LARGE_MODEL_THREADS = 8


def model_mb(wildcards, attempt):
    """Memory of a job that runs the model."""
    return cost.model_memory_mb(SIZES[wildcards.model], attempt)


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
    harvest = CONFIG.models[wildcards.model].harvest.of(wildcards.corpus)
    return sum(harvest.tokens(split) for split in splits_used(wildcards.model, wildcards.corpus))


def packing_mb(wildcards, attempt):
    """A file's tokens are in memory until it is whole."""
    return cost.packing_memory_mb(packed_tokens(wildcards), attempt)


def packing_minutes(wildcards, attempt):
    """Text to tokens to contexts."""
    return cost.packing_minutes(packed_tokens(wildcards), attempt)


def harvest_mb(wildcards, attempt):
    """The model, and all tokens of the split beside it: each shard's job checks that they are what was packed."""
    tokens = CONFIG.models[wildcards.model].harvest.of(wildcards.corpus).tokens(wildcards.split)
    return cost.model_memory_mb(SIZES[wildcards.model], attempt, tokens)


def audit_mb(wildcards, attempt):
    """The model, and the training text of which it is shown some."""
    harvest = CONFIG.models[wildcards.model].harvest.of(first_training_corpus(wildcards.model))
    return cost.model_memory_mb(SIZES[wildcards.model], attempt, harvest.train_tokens)


def audit_minutes(wildcards, attempt):
    """The weights are read, and run a few times on little text."""
    return 20 * attempt + cost.minutes(0, 1, SIZES[wildcards.model].bytes, attempt)


def shard_tokens(wildcards):
    """Tokens of one activation file: a shard, or all there are."""
    harvest = CONFIG.models[wildcards.model].harvest.of(wildcards.corpus)
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


def sae_values(wildcards):
    """Weights of an SAE's encoder and decoder."""
    row = sae_row(wildcards)
    return cost.dictionary_values(row.recipe.n_latents, CONFIG.models[row.model].d_model)


def training_rows(wildcards):
    """Rows that a training draws."""
    recipe = sae_row(wildcards).recipe
    return recipe.steps * recipe.batch_size


def training_mb(wildcards, attempt):
    """Float32 weights, gradients and two Adam moments; batches; the libraries."""
    return cost.megabytes(4 * 4 * sae_values(wildcards), attempt)


def training_threads(wildcards):
    """Small dictionaries train one per core: many at once beat one that waits for its threads."""
    return 1 if sae_values(wildcards) < 8e6 else 8


def training_minutes(wildcards, attempt):
    """Forward and backward on every drawn row, which is read once."""
    row = sae_row(wildcards)
    model, rows = CONFIG.models[row.model], training_rows(wildcards)
    # Above the size at which a training gets several cores it is meant for a GPU.
    flops = cost.GPU_FLOPS if training_threads(wildcards) > 1 else cost.CPU_FLOPS
    moved = cost.store_bytes(rows, model.d_model, 1)
    return cost.minutes(cost.training_flop(row.recipe.n_latents, model.d_model, rows), flops, moved, attempt)


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


def evaluation_minutes(wildcards, attempt):
    """Spliced passes under both protocols; every held-out row through the dictionary and the random ones beside it."""
    size, row = SIZES[wildcards.model], sae_row(wildcards)
    corpora, harvest = len(ROLES[row.sae_id]), CONFIG.models[row.model].harvest
    passes = 4 * corpora * size.forward(CONFIG.evaluation.loss_tokens)
    rows = corpora * max(harvest.of(corpus).eval_tokens for corpus in ROLES[row.sae_id])
    encoded = 2.0 * sae_values(wildcards) * rows * (2 + CONFIG.evaluation.null_dictionaries)
    read = size.bytes + cost.store_bytes(rows, size.d_model, 1)
    return cost.minutes(passes + encoded, size.flops, read, attempt)


def check_gpu_limit():
    """Refuse numbers of GPUs that Snakemake would cut down in silence, or that this machine does not have."""
    limit = workflow.global_resources.get("gpu")
    if not workflow.is_main_process or limit is None:
        return
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


check_gpu_limit()
