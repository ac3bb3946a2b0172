"""Studies of one hook that are a grid: dictionaries that differ in latents and k, or also in how long they train."""

from collections.abc import Sequence

from atlas.config.rows import SaeRow

_SIZE = {"n_latents", "k"}
# Keys of a recipe that follow its length.
_LENGTH = {
    "steps",
    "warmup_steps",
    "decay_start",
    "threshold_start_step",
    "sparsity_warmup_steps",
    "dead_feature_tokens",
}


def is_grid(rows: Sequence[SaeRow]) -> bool:
    """Return whether rows differ in nothing but latents, k and seed, and some k has two sizes or more."""
    sizes: dict[int | None, set[int]] = {}
    for row in rows:
        if row.recipe is None:  # a published SAE: how it was trained is not known
            return False
        sizes.setdefault(row.recipe.k, set()).add(row.recipe.n_latents)
    return _are_alike(rows, _SIZE) and None not in sizes and max(map(len, sizes.values())) > 1


def has_budgets(rows: Sequence[SaeRow]) -> bool:
    """Return whether rows differ in nothing but length of training, latents, k and seed, and lengths are several."""
    lengths: set[int] = set()
    for row in rows:
        if row.recipe is None:
            return False
        lengths.add(row.recipe.steps)
    return len(lengths) > 1 and _are_alike(rows, _SIZE | _LENGTH)


def _are_alike(rows: Sequence[SaeRow], differing: set[str]) -> bool:
    """Return whether rows are equal but for these keys of the recipe, and none is under a shift or a regime."""
    first = _rest(rows[0], differing)
    return all(row.shift is None and row.intended is None and _rest(row, differing) == first for row in rows)


def _rest(row: SaeRow, differing: set[str]) -> tuple[object, ...]:
    recipe = None if row.recipe is None else row.recipe.model_dump(exclude=differing)
    return row.model, row.hook, row.target_hook, row.mix, row.roles, recipe
