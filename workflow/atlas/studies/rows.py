"""What the tables of a study have in common: columns that say who a row is about."""

from typing import Any

from atlas.hook_points import SaeHooks


def identity(study: str, sae_id: str) -> dict[str, Any]:
    """Columns that say which SAE a row is about."""
    model, hook, mix, recipe, seed = sae_id.split("/")
    hooks = SaeHooks.parse(hook)
    return {
        "study": study,
        "model": model,
        "hook": hooks.source,
        "target_hook": hooks.target_hook,
        "mix": mix,
        "recipe": recipe,
        "seed": int(seed.removeprefix("seed-")),
    }
