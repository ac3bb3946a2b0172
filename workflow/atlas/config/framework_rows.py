"""The runs of the study `frameworks`: its study and hook resolved, recipes and contenders combined."""

from dataclasses import dataclass, field
from typing import Any

from atlas.config.frameworks import FRAMEWORKS
from atlas.config.recipe import Recipe
from atlas.config.rows import expand_rows
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError


@dataclass(frozen=True)
class FrameworkRun:
    """One training by one contender, judged on `corpus`, the held-out documents of the mix's in-sample corpus."""

    contender: str
    framework: str
    model: str
    hook: str
    mix: str
    corpus: str
    recipe_name: str
    recipe: Recipe
    seed: int
    options: dict[str, Any] = field(hash=False)

    @property
    def run_id(self) -> str:
        """Path of the run below results/frameworks/."""
        return f"{self.contender}/{self.recipe_name}/seed-{self.seed}"


def expand_frameworks(config: AtlasConfig) -> list[FrameworkRun]:
    """Every run, recipe by recipe; none if the configuration has no section `frameworks`.

    A contender has no run of an architecture that its framework does not train. Raises ConfigError with key, value and
    what was expected.
    """
    section = config.frameworks
    if section is None:
        return []
    for name, recipe in section.recipes.items():
        if recipe.twin is not None:
            raise ConfigError(
                f"frameworks.recipes.{name}.twin: {recipe.twin!r} is a null that is trained here alone: "
                "dictionaries of other frameworks have no twins; leave it out"
            )
    if section.study not in config.studies:
        raise ConfigError(f"frameworks.study: {section.study!r} is not one of {sorted(config.studies)}")
    rows = [row for row in expand_rows(config)[section.study] if row.target_hook is None and row.published is None]
    found = [row for row in rows if row.hook == section.hook]
    if not found:
        hooks = ", ".join(dict.fromkeys(row.hook for row in rows))
        raise ConfigError(f"frameworks.hook: {section.hook!r} is at no SAE of study {section.study!r}; it has {hooks}")
    row = found[0]
    corpus = next(corpus for corpus, role in row.roles.items() if role == "in_sample")
    return [
        FrameworkRun(
            name,
            contender.framework,
            row.model,
            row.hook,
            row.mix,
            corpus,
            recipe_name,
            recipe,
            seed,
            contender.options,
        )
        for recipe_name, recipe in section.recipes.items()
        for name, contender in section.contenders.items()
        if recipe.architecture in FRAMEWORKS[contender.framework]
        for seed in section.seeds
    ]
