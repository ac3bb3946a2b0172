"""The ids of SAEs, ``<model>/<hook>/<mix>/<recipe>/seed-<n>``, and what stands in them of one trained elsewhere.

Such an SAE has in place of a mix `STATED` and the corpora that the user calls in-sample, in place of a recipe its name
in section `saes`, and seed 0, which draws the random dictionary beside it. Free of heavy imports, as `hook_points` is.
"""

from typing import Any

from atlas.hook_points import SaeHooks

STATED = "published-"
# What a run card and a table say of what only the trainer knows.
NOT_STATED = "not stated by the release"
# For readers and in figures, in the place of the mix.
PUBLISHED = "published"


def is_stated(mix: str) -> bool:
    """Return whether the mix of an id is of an SAE that was not trained here."""
    return mix.startswith(STATED)


def names_of(sae_id: str) -> dict[str, Any]:
    """Model, hooks, mix, recipe and seed by an id; a published SAE has neither mix nor seed."""
    model, hook, mix, recipe, seed = sae_id.split("/")
    hooks, published = SaeHooks.parse(hook), is_stated(mix)
    return {
        "model": model,
        "hook": hooks.source,
        "target_hook": hooks.target_hook,
        "mix": None if published else mix,
        "recipe": recipe,
        "seed": None if published else int(seed.removeprefix("seed-")),
    }


def how_made(sae_id: str) -> str:
    """``mix · recipe · seed 0`` for readers, or ``published · name``."""
    mix, recipe, seed = sae_id.split("/")[2:]
    return f"{PUBLISHED} · {recipe}" if is_stated(mix) else f"{mix} · {recipe} · {seed.replace('-', ' ')}"
