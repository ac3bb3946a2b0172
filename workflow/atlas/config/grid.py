"""Studies that are a grid of sizes: dictionaries of one hook that differ in latents and k alone."""

from collections.abc import Sequence

from atlas.config.rows import SaeRow

_SIZE = {"n_latents", "k"}


def is_grid(rows: Sequence[SaeRow]) -> bool:
    """Return whether rows differ in nothing but latents, k and seed, and some k has two sizes or more."""
    sizes: dict[int | None, set[int]] = {}
    for row in rows:
        if row.recipe is None:  # a published SAE: how it was trained is not known
            return False
        sizes.setdefault(row.recipe.k, set()).add(row.recipe.n_latents)
    alike = all(row.shift is None and row.intended is None and _rest(row) == _rest(rows[0]) for row in rows)
    return alike and None not in sizes and max(map(len, sizes.values())) > 1


def _rest(row: SaeRow) -> tuple[object, ...]:
    recipe = None if row.recipe is None else row.recipe.model_dump(exclude=_SIZE)
    return row.model, row.hook, row.target_hook, row.mix, row.roles, recipe
