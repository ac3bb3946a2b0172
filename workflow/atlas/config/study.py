"""Studies: named sets of SAEs that end in one table; and the thresholds of evaluation."""

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field, model_validator

from atlas.config.base import Name, Section, Seeds
from atlas.config.recipe import TwinKind
from atlas.config.shifts import Regime

# Stages after evaluation whose measures can be held against twins.
TwinStage = Literal["latents", "labels", "stability", "probing", "absorption"]
# Measures of latents that say whether a dictionary is of use; loss and twins need no stage of their own.
UsefulnessMeasure = Literal["coherence", "stability", "labels"]
# Case studies in workflow/atlas/studies/published.csv.
CaseStudy = Literal["llama_sweep", "nemotron", "bert"]


class EvaluationCorpora(Section):
    """On which text an SAE is judged, from near to far."""

    in_sample: Name | Annotated[tuple[Name, ...], Len(1)] = Field(
        description="Corpus of training, or a list of them; its held-out documents are used. The first one is what "
        "drift starts from."
    )
    proxy: tuple[Name, ...] = Field(default=(), description="Related corpora, not trained on.")
    oos: tuple[Name, ...] = Field(min_length=1, description="Out-of-sample corpora.")

    @model_validator(mode="after")
    def _distinct(self):
        names = list(self.by_corpus())
        given = [*self.trained, *self.proxy, *self.oos]
        if len(names) != len(given):
            raise ValueError(f"corpora {given} repeat: each has one role")
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """The in-sample corpora."""
        return (self.in_sample,) if isinstance(self.in_sample, str) else self.in_sample

    def by_corpus(self) -> dict[str, str]:
        """Role of each corpus: in_sample, proxy or oos."""
        roles = dict.fromkeys(self.trained, "in_sample")
        roles |= dict.fromkeys(self.proxy, "proxy")
        return roles | dict.fromkeys(self.oos, "oos")


class StudyRow(Section):
    """One SAE per seed. What is left out comes from the study."""

    sae: Name | None = Field(
        default=None,
        description="An entry of `saes`, in place of a model, hook, mix, recipe and seeds: an SAE that was trained "
        "elsewhere. `in_sample` and `oos` are then what you state, and the table says so.",
    )
    hook: str | None = Field(default=None, description="Hook point, for example resid_post.19; not with `sae`.")
    target_hook: str | None = Field(
        default=None,
        description="Makes a transcoder: rows of `hook` are read, those of this later hook are reconstructed, for "
        "example mlp_in.10 and mlp_out.10. null: an SAE, which reconstructs what it reads.",
    )
    model: Name | None = None
    mix: Name | None = None
    recipe: Name | None = None
    seeds: Seeds | None = None
    override: dict[str, Any] = Field(default={}, description="Recipe keys that differ in this row.")
    evaluation: EvaluationCorpora | None = Field(
        default=None, description="Roles of the evaluation corpora for this row, where its mix gives them others."
    )
    shift: Name | None = Field(
        default=None, description="Judge this row's SAE under that entry of `shifts`; null: where it was trained."
    )
    intended: Regime | None = Field(
        default=None, description="The regime that `cause` is to provoke; null: this row provokes none."
    )
    cause: str | None = Field(default=None, description="The one thing that is wrong on purpose, in a few words.")

    @model_validator(mode="after")
    def _causes(self):
        if (self.intended is None) != (self.cause is None):
            raise ValueError("intended and cause belong together: give both, or neither")
        return self

    @model_validator(mode="after")
    def _trained_or_published(self):
        if self.sae is None and self.hook is None:
            raise ValueError("give 'hook' for an SAE that is trained here, or 'sae' for one of section saes")
        keys = ("hook", "target_hook", "model", "mix", "recipe", "seeds", "override")
        given = [key for key in keys if self.sae is not None and getattr(self, key) not in (None, {})]
        if given:
            raise ValueError(
                f"sae is {self.sae!r}, which was not trained here: must have no {', '.join(given)}; "
                f"model and hook are keys of saes.{self.sae}"
            )
        return self


class Study(Section):
    """A named set of SAEs."""

    model: Name | None = Field(default=None, description="Model of rows that name none.")
    mix: Name | None = Field(default=None, description="Mix of rows that name none.")
    recipe: Name | None = Field(default=None, description="Recipe of rows that name none.")
    seeds: Seeds = Field(default=(0,), description="Seeds of rows that name none.")
    evaluation: EvaluationCorpora
    published: CaseStudy | None = Field(
        default=None, description="Case study of the guide, whose published rows are put beside ours."
    )
    twins: tuple[TwinKind, ...] = Field(
        default=(),
        description="Trained nulls that every row and seed gets, of `frozen_decoder`, `near_decoder` and "
        "`frozen_encoder`: each measure is then held against the best of them (docs/twins.md). Empty: none, and "
        "`learnt` stays untested.",
    )
    twin_stages: tuple[TwinStage, ...] = Field(
        default=("latents",),
        description="Stages after evaluation whose measures `results/<study>_learnt.csv` holds against twins; they are "
        "computed for every SAE and twin: coherence (`latents`), labels and intruders (`labels`), agreement of seeds "
        "(`stability`), sparse probes (`probing`), first-letter absorption (`absorption`).",
    )
    usefulness: tuple[UsefulnessMeasure, ...] = Field(
        default=(),
        description="Measures of latents from which `results/<study>_usefulness.csv` says whether an SAE is of use to "
        "a reader, besides the loss and `learnt`: `coherence`, `stability` (agreement of seeds), `labels` "
        "(docs/metrics.md, section 20). They are computed for that table, and the study's printed table has its word. "
        "Empty: these measures stay untested.",
    )
    rows: tuple[StudyRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_once(self):
        for key in ("twins", "usefulness"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} is {list(values)}: name each once")
        return self


class Taxonomy(Section):
    """Thresholds of the outcome taxonomy; docs/metrics.md gives the order and the reasons."""

    failed_below: float = Field(default=0.05, description="Reconstruction below which a run is a debugging event.")
    dead_above: float = Field(default=0.9, description="Dead share above which nothing else matters.")
    duplicated_above: float = Field(
        default=0.5, description="absorption_guide above which latents are copies; guide protocol and published rows."
    )
    duplicated_share_above: float = Field(
        default=0.25,
        description="Share of latents with a decoder cosine above 0.7 to another one, above which they are copies; "
        "atlas protocol.",
    )
    dense_above: float = Field(
        default=0.5,
        description="Share of latents firing on more than 10 % of tokens: noisy. A small clean dictionary has fewer: "
        "at k / F = 0.08 about a quarter of its latents is that dense.",
    )
    deceptive_reconstruction: float = Field(default=0.9, description="Reconstruction that looks good alone.")
    deceptive_dead_above: float = Field(default=0.5, description="Dead share that makes a good number deceptive.")
    deceptive_absorption_above: float = Field(
        default=0.35, description="absorption_guide that makes it deceptive; guide protocol and published rows."
    )
    unhealthy_share_above: float = Field(
        default=0.1,
        description="Share of latents with a decoder cosine above 0.7 that makes a dictionary unhealthy, and a good "
        "number deceptive; atlas protocol.",
    )
    unhealthy_dead_above: float = Field(default=0.25, description="Dead share of an unhealthy dictionary.")
    weak_below: float = Field(default=0.5, description="Reconstruction of a healthy but under-capacity dictionary.")
    weak_recovered_below: float = Field(
        default=0.9,
        description="Share of the loss recovered against the mean row, in place of regular rows, below which a healthy "
        "dictionary is under-capacity; atlas protocol.",
    )


class MinLossGap(Section):
    """By how much an ablation must raise the loss for a share of it to mean something, in the objective's own units."""

    causal_lm: float = Field(default=0.1, gt=0, description="Nats of cross-entropy per token.")
    masked_lm: float = Field(default=0.1, gt=0, description="Nats of cross-entropy per masked token.")
    sequence_classification: float = Field(
        default=0.01, gt=0, description="Nats of KL: no chance of a class has moved by more than 0.07 (Pinsker)."
    )
    embedding: float = Field(default=0.01, gt=0, description="1 - cosine: the embedding has turned by 8 degrees.")


class Evaluation(Section):
    """Settings shared by all evaluations."""

    loss_tokens: int = Field(default=65_536, ge=1, description="Tokens per corpus on which the model is run again.")
    dead_min_tokens: int = Field(
        default=1_000_000, ge=1, description="Below this many tokens a silent latent is 'untested', not 'dead'."
    )
    null_dictionaries: int = Field(default=8, ge=8, description="Random dictionaries behind each redundancy null.")
    min_loss_gap: MinLossGap = Field(default=MinLossGap())
    monitor_rows: int = Field(default=4096, ge=1, description="Rows per corpus looked at while training.")
    bootstrap_samples: int = Field(
        default=1000, ge=100, description="Draws of documents, for intervals of latents, labels and finance."
    )
    taxonomy: Taxonomy = Field(default=Taxonomy())
