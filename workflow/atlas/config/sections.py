"""The whole configuration, with the checks that span sections."""

from pydantic import Field, model_validator

from atlas.config.base import Name, Section
from atlas.config.data import Corpus, Mix, Model
from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation, Study


class AtlasConfig(Section):
    """Everything that changes a result. Resources live in rules, partitions in profiles."""

    models: dict[Name, Model] = Field(min_length=1)
    corpora: dict[Name, Corpus] = Field(min_length=1)
    mixes: dict[Name, Mix] = Field(min_length=1)
    recipes: dict[Name, Recipe] = Field(min_length=1)
    evaluation: Evaluation = Field(default=Evaluation())
    studies: dict[Name, Study] = Field(min_length=1)

    @model_validator(mode="after")
    def _mixes_name_corpora(self):
        for name, mix in self.mixes.items():
            for corpus in mix.corpora:
                if corpus not in self.corpora:
                    raise ValueError(f"mixes.{name} names corpus {corpus!r}: must be one of {sorted(self.corpora)}")
        return self
