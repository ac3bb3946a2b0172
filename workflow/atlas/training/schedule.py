"""Learning rate over the steps (dictionary_learning, trainer.py, `get_lr_schedule`)."""

from atlas.config.recipe import Recipe


def base_lr(recipe: Recipe) -> float:
    """The configured learning rate, or ``2e-4 / sqrt(n_latents / 2^14)`` (arXiv 2406.04093, figure 3)."""
    return recipe.lr if recipe.lr is not None else 2e-4 / (recipe.n_latents / 2**14) ** 0.5


def lr_at(recipe: Recipe, step: int) -> float:
    """Learning rate of update `step`, counted from 0: linear warm-up from 0, constant, linear decay to 0."""
    if step < recipe.warmup_steps:
        return base_lr(recipe) * (step / recipe.warmup_steps)
    if recipe.decay_start is not None and step >= recipe.decay_start:
        return base_lr(recipe) * ((recipe.steps - step) / (recipe.steps - recipe.decay_start))
    return base_lr(recipe)
