"""How effects of latents are measured: how many, on how many firings, at which clamps."""

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
    labels: bool = Field(
        default=True, description="Whether labels are asked which tokens a latent promotes; section `autointerp`."
    )

    @field_validator("clamps")
    @classmethod
    def _clamps_rise(cls, clamps: tuple[float, ...]) -> tuple[float, ...]:
        if list(clamps) != sorted(set(clamps)) or clamps[0] != 0:
            raise ValueError(f"clamps are {list(clamps)}: must begin with 0, which is ablation, and rise")
        return clamps
