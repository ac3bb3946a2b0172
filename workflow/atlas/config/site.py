"""The atlas' pages: of which studies, and how much of each latent they show; and pages of a reader's sentences."""

from typing import Literal

from pydantic import Field

from atlas.config.base import Name, Section


class Site(Section):
    """Static pages of studies, SAEs and latents: `snakemake --cores 2 results/atlas/index.html`."""

    studies: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="Studies that have pages; null: the first one of section `studies`."
    )
    labels: bool = Field(default=True, description="Whether latents are labelled for the pages; section `autointerp`.")
    effects: bool = Field(
        default=False,
        description="Whether pages show what latents do; section `causal`. Takes minutes for each SAE of a causal_lm.",
    )
    latents_per_sae: int | None = Field(
        default=4096, ge=1, description="Latents of an SAE that get a page, drawn by chance; null: all."
    )
    random_latents: int = Field(
        default=8,
        ge=0,
        description="Latents of the random dictionary beside an SAE that get a page, drawn by chance among those that "
        "fire: what latents look like that mean nothing.",
    )
    top_contexts: int = Field(default=8, ge=1, description="Strongest contexts of a latent, one per document.")
    strata: int = Field(default=4, ge=1, description="Strata of activation that other contexts are drawn from.")
    contexts_per_stratum: int = Field(default=2, ge=0, description="Contexts of each stratum.")
    window_tokens: int = Field(default=11, ge=1, description="Tokens of a context on either side.")
    neighbours: int = Field(default=5, ge=1, description="Nearest decoder directions.")
    run_cards: Literal["full", "public"] = Field(
        default="full", description="Whether run cards are shown whole, or without the recipe."
    )


class Prompts(Section):
    """Your sentences, and the latents that fire on them: `snakemake --cores 2 results/prompts/<study>/<name>.html`."""

    file: str = Field(description="Text file, one sentence a line, relative to the working directory or absolute.")
    latents_per_text: int = Field(default=8, ge=1, description="Strongest latents of a sentence.")
    latents_per_token: int = Field(default=5, ge=1, description="Strongest latents of a token.")
