"""The ids of SAEs, ``<model>/<hook>/<mix>/<recipe>/seed-<n>``, and what stands in them of one trained elsewhere.

Such an SAE has in place of a mix `STATED` and the corpora that the user calls in-sample, in place of a recipe its name
in section `saes`, and seed 0, which draws the random dictionary beside it. Free of heavy imports, as `hook_points` is.
"""

import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SaeId:
    """An id in its parts; ``str`` gives it back. It is the SAE's path below results/saes/, and its name everywhere."""

    model: str
    hooks: SaeHooks
    mix: str
    recipe: str
    seed: int

    @classmethod
    def parse(cls, text: str) -> "SaeId":
        """Read an id; raises ValueError that states the form."""
        parts = text.split("/")
        if len(parts) != 5 or not re.fullmatch(r"seed-[0-9]+", parts[4]):
            raise ValueError(f"{text!r} is no id of an SAE; expected <model>/<hook>/<mix>/<recipe>/seed-<n>")
        model, hooks, mix, recipe, seed = parts
        return cls(model, SaeHooks.parse(hooks), mix, recipe, int(seed.removeprefix("seed-")))

    def __str__(self) -> str:
        return f"{self.model}/{self.hooks}/{self.mix}/{self.recipe}/seed-{self.seed}"

    @property
    def is_published(self) -> bool:
        """Return whether the SAE was trained elsewhere."""
        return is_stated(self.mix)

    @property
    def columns(self) -> dict[str, Any]:
        """Model, hooks, mix, recipe and seed as tables have them; a published SAE has neither mix nor seed."""
        return {
            "model": self.model,
            "hook": self.hooks.source,
            "target_hook": self.hooks.target_hook,
            "mix": None if self.is_published else self.mix,
            "recipe": self.recipe,
            "seed": None if self.is_published else self.seed,
        }

    @property
    def how_made(self) -> str:
        """``mix · recipe · seed 0`` for readers, or ``published · name``."""
        return f"{PUBLISHED} · {self.recipe}" if self.is_published else f"{self.mix} · {self.recipe} · seed {self.seed}"

    @property
    def title(self) -> str:
        """Its name for readers."""
        return f"{self.model} · {self.hooks} · {self.how_made}"


def split_shift(judged_id: str) -> tuple[SaeId, str | None]:
    """Read the id of an SAE, and the shift behind it under which a row evaluates the SAE; None without one."""
    parts = judged_id.split("/")
    return SaeId.parse("/".join(parts[:5])), parts[5] if len(parts) > 5 else None
