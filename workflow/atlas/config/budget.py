"""Check that a corpus is large enough for the steps that draw from it."""

from collections.abc import Mapping

from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe


def mean_weights(mix: Mix) -> dict[str, float]:
    """The share of each corpus over all of training."""
    shares, begin = dict.fromkeys(mix.corpora, 0.0), 0.0
    for phase in mix.phases:
        for name, weight in phase.weights.items():
            shares[name] += weight * (phase.until - begin)
        begin = phase.until
    return shares


def too_many_epochs(recipe: Recipe, drawn_shares: Mapping[str, float], rows: Mapping[str, float]) -> str | None:
    """Return what is wrong when the steps visit a corpus more than `max_epochs` times; None when nothing is.

    `rows` are the trainable rows of each corpus, or the most that they can be.
    """
    if recipe.max_epochs is None:
        return None
    needed = recipe.steps * recipe.batch_size
    for name, share in drawn_shares.items():
        epochs = share * needed / rows[name]
        if epochs > recipe.max_epochs:
            wanted = share * needed / recipe.max_epochs
            steps = int(recipe.steps * recipe.max_epochs / epochs)
            return (
                f"corpus {name!r} has {rows[name]:,.0f} rows to train on, of which {recipe.steps:,} steps of "
                f"{recipe.batch_size:,} rows draw {share * needed:,.0f}: {epochs:.3g} epochs, max_epochs is "
                f"{recipe.max_epochs:g}. Raise train_tokens so that {wanted:,.0f} rows are stored, lower steps to "
                f"{steps:,} or fewer, or raise max_epochs (null: any number)"
            )
    return None
