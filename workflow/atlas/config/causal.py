"""Settings of effects of latents, and of comparisons between latents and other directions on labelled texts."""

from pydantic import Field, field_validator

from atlas.config.base import Section

# Clamps of the continuations on a latent's page, as multiples of its largest activation.
SHOWN_CLAMPS = (0.0, 1.0, 4.0)


class Causal(Section):
    """Effects of single latents on held-out text: `snakemake --cores 2 results/<study>_effects.csv`."""

    latents: int | None = Field(
        default=400, ge=2, description="Latents of an SAE that are measured, drawn by chance; null: all that fire."
    )
    firings: int = Field(default=16, ge=2, description="Firings of a latent, of as many documents as possible.")
    horizon: int = Field(default=4, ge=2, description="Predictions that are compared: at the firing, and after it.")
    clamps: tuple[float, ...] = Field(
        default=(0.0, 0.5, 1.0, 2.0, 4.0),
        min_length=2,
        description="Clamps of the dose curve, as multiples of the largest activation.",
    )
    tokens: int = Field(default=10, ge=1, description="Promoted and suppressed tokens of each latent.")
    prompt_tokens: int = Field(default=16, ge=1, description="Tokens before a continuation.")
    continuation_tokens: int = Field(default=12, ge=1, description="Tokens of a continuation.")
    twins: bool = Field(
        default=False,
        description="Whether the same latents of the SAE's trained twins are a null; they are trained for it.",
    )
    labels: bool = Field(
        default=True, description="Whether labels are asked which tokens a latent promotes; section `autointerp`."
    )

    @field_validator("clamps")
    @classmethod
    def _clamps_rise(cls, clamps: tuple[float, ...]) -> tuple[float, ...]:
        if list(clamps) != sorted(set(clamps)) or clamps[0] != 0:
            raise ValueError(f"clamps are {list(clamps)}: must begin with 0, which is ablation, and rise")
        return clamps


class Concepts(Section):
    """Latents as detectors and as handles of labelled concepts: `snakemake --cores 2 results/<study>_concepts.csv`."""

    steered: int = Field(
        default=6,
        ge=0,
        description="Data sets of `probing` on which steering is measured, drawn by chance; 0: detection alone.",
    )
    strengths: tuple[float, ...] = Field(
        default=(0.25, 0.5, 1.0),
        min_length=1,
        description="Lengths of what is added, as multiples of the median norm of training rows at the hook.",
    )
    prompts: int = Field(default=16, ge=4, description="Beginnings of held-out documents that are continued.")
    prompt_tokens: int = Field(default=16, ge=1, description="Tokens of a beginning.")
    new_tokens: int = Field(default=24, ge=1, description="Tokens of a continuation.")
    judge_texts: int = Field(
        default=400, ge=40, description="Held-out texts of a data set on which the judge of generated text is trained."
    )
    min_judge_auc: float = Field(
        default=0.7, ge=0.5, lt=1, description="AUC of the judge below which a data set has no steering score."
    )

    @field_validator("strengths")
    @classmethod
    def _strengths_rise(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if list(strengths) != sorted(set(strengths)) or strengths[0] <= 0:
            raise ValueError(f"strengths are {list(strengths)}: must be above 0, and rise")
        return strengths
