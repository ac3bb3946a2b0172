"""The study `frameworks`: which peers train beside ours, on which rows, with which recipes."""

from typing import Any, Literal

from pydantic import Field, model_validator

from atlas.config.base import Name, Section, Seeds
from atlas.config.faults import shown
from atlas.config.recipe import Recipe

OURS = "atlas"
# Framework: the architectures that it trains and a runner exists for.
FRAMEWORKS = {
    OURS: ("topk", "batch_topk"),
    "dictionary_learning": ("topk", "batch_topk"),
    "sparsify": ("topk",),
    "saelens": ("topk", "batch_topk"),
}
# Framework: the options of its runner. What they mean is said there (workflow/peers, atlas/frameworks/ours.py).
OPTIONS = {
    OURS: ("matmul_dtype", "parity"),
    "dictionary_learning": ("autocast",),
    "sparsify": (),
    "saelens": ("autocast", "use_sparse_activations"),
}


class Contender(Section):
    """One row of the comparison: a framework and how it is set."""

    framework: Literal["atlas", "dictionary_learning", "sparsify", "saelens"]
    options: dict[str, Any] = Field(default={}, description="Options of the framework's runner, docs/frameworks.md.")

    @model_validator(mode="after")
    def _known_options(self):
        for name in self.options:
            if name not in OPTIONS[self.framework]:
                known = ", ".join(OPTIONS[self.framework]) or "none"
                raise ValueError(f"options: {name!r} is no option of {self.framework}, which has: {known}")
        return self


class Frameworks(Section):
    """The same rows and recipes trained by ours and by peers in their own environments, judged by one evaluation."""

    study: Name = Field(description="Study whose model, mix and in-sample corpus are taken.")
    hook: str = Field(description="Hook of a row of that study.")
    recipes: dict[Name, Recipe] = Field(
        min_length=1,
        description="Recipes with topk or batch_topk; decay_start is warmup_steps + 1, as sparsify has it.",
    )
    seeds: Seeds = Field(default=(0,), description="Seeds of start and order of the rows.")
    contenders: dict[Name, Contender] = Field(  # pyright: ignore[reportAssignmentType]  # validated into Contender
        default={name: {"framework": name} for name in FRAMEWORKS},
        description="What is compared; `atlas` is what the others are compared with.",
    )

    @model_validator(mode="after")
    def _recipes_for_all(self):
        for name, recipe in self.recipes.items():
            if recipe.architecture not in FRAMEWORKS[OURS]:
                raise ValueError(
                    f"recipes.{name} has architecture {recipe.architecture!r}; expected one of "
                    f"{', '.join(FRAMEWORKS[OURS])}"
                )
            if recipe.decay_start != recipe.warmup_steps + 1:
                raise ValueError(
                    f"recipes.{name} has decay_start {shown(recipe.decay_start)}; expected warmup_steps + 1, which is "
                    f"{recipe.warmup_steps + 1}: with sparsify the learning rate falls from the end of the warm-up on"
                )
            if recipe.parity or not recipe.normalise_activations:
                raise ValueError(
                    f"recipes.{name} has parity {shown(recipe.parity)} and normalise_activations "
                    f"{shown(recipe.normalise_activations)}; expected null and true: all get the same normalised rows, "
                    "and each trains in its own way"
                )
        return self

    @model_validator(mode="after")
    def _has_ours(self):
        if OURS not in self.contenders or self.contenders[OURS].framework != OURS:
            raise ValueError(
                f"contenders has {sorted(self.contenders)}: must have {OURS!r}, which all are compared with"
            )
        return self
