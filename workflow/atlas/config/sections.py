"""The whole configuration, with the checks that span sections."""

from pydantic import Field, model_validator

from atlas.config.autointerp import Autointerp
from atlas.config.base import Name, Section
from atlas.config.causal import Causal, Concepts
from atlas.config.corpora import Corpus
from atlas.config.data import Model
from atlas.config.downstream import Absorption, Probing, Stability
from atlas.config.finance import Finance
from atlas.config.frameworks import Frameworks
from atlas.config.latents import Latents
from atlas.config.mixes import Mix
from atlas.config.reading import Reading
from atlas.config.recipe import Recipe
from atlas.config.sae_bench import SaeBench
from atlas.config.saes import PublishedSae
from atlas.config.shifts import HOME, Regimes, Shift
from atlas.config.site import Prompts, Site
from atlas.config.study import Evaluation, Study
from atlas.config.tracking import Tracking
from atlas.measures import endings
from atlas.sae_ids import STATED


class AtlasConfig(Section):
    """All settings that change a result, and `tracking`, which does not. Resources live in rules."""

    models: dict[Name, Model] = Field(min_length=1)
    corpora: dict[Name, Corpus] = Field(min_length=1)
    mixes: dict[Name, Mix] = Field(default={}, description="Text that SAEs are trained on here.")
    recipes: dict[Name, Recipe] = Field(default={}, description="How SAEs are trained here.")
    saes: dict[Name, PublishedSae] = Field(
        default={}, description="SAEs that were trained elsewhere; study rows name them with `sae`."
    )
    evaluation: Evaluation = Field(default=Evaluation())
    latents: Latents = Field(default=Latents())
    stability: Stability = Field(default=Stability())
    probing: Probing = Field(default=Probing())
    absorption: Absorption = Field(default=Absorption())
    autointerp: Autointerp = Field(default=Autointerp())
    causal: Causal = Field(default=Causal())
    concepts: Concepts = Field(default=Concepts())
    reading: Reading = Field(default=Reading())
    sae_bench: SaeBench = Field(default=SaeBench())
    studies: dict[Name, Study] = Field(min_length=1)
    shifts: dict[Name, Shift] = Field(
        default={}, description="Ways in which an SAE is judged away from where it was trained; rows name them."
    )
    regimes: Regimes = Field(default=Regimes())
    finance: dict[Name, Finance] = Field(
        default={}, description="Studies of training text that are looked at on financial text; none if empty."
    )
    frameworks: Frameworks | None = Field(
        default=None, description="Peers that train beside ours for comparison; null: none."
    )
    site: Site = Field(default=Site())
    prompts: dict[Name, Prompts] = Field(default={}, description="Files of your sentences, each with a page.")
    tracking: Tracking = Field(default=Tracking())

    @model_validator(mode="after")
    def _mixes_name_corpora(self):
        for name, mix in self.mixes.items():
            for corpus in mix.corpora:
                if corpus not in self.corpora:
                    raise ValueError(f"mixes.{name} names corpus {corpus!r}: must be one of {sorted(self.corpora)}")
            if name.startswith(STATED):
                raise ValueError(f"mixes.{name}: names with {STATED!r} are of `saes`; choose another")
        return self

    @model_validator(mode="after")
    def _client_names_a_model(self):
        client = self.autointerp.client
        if client is not None and client.kind == "transformers" and client.model not in self.models:
            raise ValueError(f"autointerp.client.model: {client.model!r} is not one of {sorted(self.models)}")
        return self

    @model_validator(mode="after")
    def _site_names_studies(self):
        for name in self.site.studies or ():
            if name not in self.studies:
                raise ValueError(f"site.studies names {name!r}: must be one of {sorted(self.studies)}")
        return self

    @model_validator(mode="after")
    def _votes_name_studies(self):
        for name in self.reading.votes:
            if name not in self.studies:
                raise ValueError(f"reading.votes names {name!r}: must be one of {sorted(self.studies)}")
        return self

    @model_validator(mode="after")
    def _budgets_name_corpora(self):
        for name, model in self.models.items():
            for corpus in model.harvest.corpora:
                if corpus not in self.corpora:
                    raise ValueError(
                        f"models.{name}.harvest.corpora names {corpus!r}: must be one of {sorted(self.corpora)}"
                    )
        return self

    @model_validator(mode="after")
    def _shift_names_are_free(self):
        if HOME in self.shifts:
            raise ValueError(f"shifts.{HOME}: that is the name of no shift; choose another")
        return self

    @model_validator(mode="after")
    def _study_names_are_free(self):
        for name in self.studies:
            if name.partition(".")[0] == "frameworks":
                raise ValueError(
                    f"studies.{name}: results/frameworks.csv is the table of section 'frameworks'; choose another name"
                )
            for ending in endings():
                if name.endswith(ending):
                    raise ValueError(
                        f"studies.{name} ends in {ending!r}: files of {name.removesuffix(ending)!r} would have its "
                        "name; choose another"
                    )
        return self
