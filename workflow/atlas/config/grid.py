"""Studies that are a grid of sizes: dictionaries of one hook that differ in latents and k alone."""

from collections.abc import Sequence

from atlas.config.rows import SaeRow

_SIZE = {"n_latents", "k"}


def is_grid(rows: Sequence[SaeRow]) -> bool:
    """Return whether rows differ in nothing but latents, k and seed, and some k has two sizes or more."""
    if any(row.recipe is None for row in rows):  # published SAEs: how they were trained is not known
        return False
    sizes: dict[int | None, set[int]] = {}
    for row in rows:
        sizes.setdefault(row.recipe.k, set()).add(row.recipe.n_latents)
    alike = all(row.shift is None and row.intended is None and _rest(row) == _rest(rows[0]) for row in rows)
    return alike and None not in sizes and max(map(len, sizes.values())) > 1


def _rest(row: SaeRow) -> tuple[object, ...]:
    return row.model, row.hook, row.target_hook, row.mix, row.roles, row.recipe.model_dump(exclude=_SIZE)
