"""SAEs judged away from where they were trained, and studies that provoke regimes on purpose."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import Field, model_validator

from atlas.config.base import Name, Section

# A regime that a cause can provoke: what docs/metrics.md section 7 calls an outcome, but for `unknown`.
Regime = Literal["failed", "dead", "duplicated", "noisy", "deceptively-good", "unhealthy", "under-capacity", "good"]
# Where a row has no shift, in names of files and in tables.
HOME = "home"


@dataclass(frozen=True)
class EvaluationTarget:
    """Rows on which an SAE is judged: a model's hook (a transcoder's two), times `scale`, on corpora with a role."""

    model: str
    hook: str
    scale: float = 1.0
    roles: dict[str, str] = field(default_factory=dict, hash=False)  # corpus -> in_sample | proxy | oos


class Shift(Section):
    """Difference between the conditions under which an SAE is judged and trained. At least one of the keys."""

    model: Name | None = Field(
        default=None, description="Judged on rows of this model, for example a fine-tuned one; of the same d_model."
    )
    hook: str | None = Field(default=None, description="Judged on rows of this hook, for example one layer off.")
    corpora: dict[Name, Name] = Field(
        default={},
        description="Judged on these corpora in the place of those, for example the same text in another template; "
        "they take over the role.",
    )
    scale: float = Field(
        default=1.0,
        gt=0,
        description="Rows are multiplied by this before they are encoded, and the reconstruction is not divided by it: "
        "a normalisation that is done wrong.",
    )

    def place(self, home: EvaluationTarget) -> EvaluationTarget:
        """Return where an SAE is judged that has its home there."""
        roles = {self.corpora.get(corpus, corpus): role for corpus, role in home.roles.items()}
        return EvaluationTarget(self.model or home.model, self.hook or home.hook, self.scale, roles)

    @model_validator(mode="after")
    def _shifts(self):
        if self.model is None and self.hook is None and not self.corpora and self.scale == 1:
            raise ValueError("changes nothing: give another model, hook or corpus, or a scale that is not 1")
        return self


class Regimes(Section):
    """Settings of judging studies with `intended` regimes. docs/metrics.md, section 16."""

    token_counts: tuple[Annotated[int, Gt(0)], ...] = Field(
        default=(10_000, 100_000),
        description="Training tokens on which latents are looked for; all training tokens are a last count.",
    )
    dead_min_tokens: int = Field(
        default=100_000,
        ge=1,
        description="Below this many training tokens a silent latent is 'untested', not 'dead'. Lower than "
        "evaluation.dead_min_tokens where so little text is harvested: then rare latents count as dead.",
    )

    @model_validator(mode="after")
    def _ascending(self):
        if list(self.token_counts) != sorted(set(self.token_counts)):
            raise ValueError(f"token_counts is {list(self.token_counts)}: must ascend, each once")
        return self
