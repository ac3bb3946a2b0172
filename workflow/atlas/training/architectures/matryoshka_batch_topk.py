"""Matryoshka BatchTopK: the first latents must reconstruct without the later ones (arXiv 2503.17547).

Selection, threshold and inference are those of BatchTopK. The latents form groups, and the loss is the mean of the
errors of the reconstructions from the first group, the first two, …, all of them: early latents cannot leave what is
common to later, finer ones.
"""

from atlas.config.recipe import Recipe
from atlas.training.architectures.base import Architecture
from atlas.training.architectures.batch_topk import activate_above_threshold
from atlas.training.selection import select_batch


def group_sizes(recipe: Recipe) -> tuple[int, ...]:
    """`group_fractions` as numbers of latents, rounded down; the last group takes the rest."""
    assert recipe.group_fractions is not None  # the recipe of this architecture has them
    sizes = [int(fraction * recipe.n_latents) for fraction in recipe.group_fractions[:-1]]
    return (*sizes, recipe.n_latents - sum(sizes))


MATRYOSHKA_BATCH_TOPK = Architecture(
    name="matryoshka_batch_topk",
    saelens="jumprelu",
    activate=activate_above_threshold,
    select=select_batch,
    groups=group_sizes,
    has_threshold=True,
)
