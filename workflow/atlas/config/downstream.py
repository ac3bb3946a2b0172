"""Settings of further measures of a finished SAE: stability over seeds, sparse probes, first-letter absorption."""

from typing import Annotated

from pydantic import Field

from atlas.config.base import Section
from atlas.config.sources import PackageSource, PathSource


class Stability(Section):
    """Settings of the comparison between seeds of one recipe."""

    exact_matching_up_to: int = Field(
        default=8192,
        ge=1,
        description="Latents up to which partners are found exactly; above it greedily, which the results name.",
    )
    null_dictionaries: int = Field(default=8, ge=8, description="Random dictionaries behind each null.")


class Probing(Section):
    """Sparse probes on labelled prompts."""

    source: Annotated[PackageSource | PathSource, Field(discriminator="kind")] = Field(
        default=PackageSource(
            kind="package",
            package="sae-probes",
            version="0.4.2",
            sha256="245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
            member="sae_probes/data",
            licence="MIT",
        ),
        description="Folder with probing_datasets_MASTER.csv.zst and the data sets that it lists.",
    )
    datasets: tuple[str, ...] | None = Field(
        default=(
            "5_hist_fig_ismale",
            "21_headline_istrump",
            "87_glue_cola",
            "92_glue_sst2",
            "105_click_bait",
            "155_athlete_sport_basketball",
        ),
        description="Names of data sets; null: all 113 binary ones.",
    )
    max_prompts: int = Field(default=1000, ge=40, description="Prompts of a data set, half of them of each class.")
    max_tokens: int = Field(default=128, ge=1, description="Last tokens of a prompt that are read.")
    test_share: float = Field(default=0.4, gt=0, lt=1, description="Share of each class held out for testing.")
    splits: int = Field(default=3, ge=2, description="Random splits into training and test prompts.")
    ks: tuple[int, ...] = Field(default=(1, 2, 5, 16), min_length=1, description="Numbers of latents of a probe.")
    min_dense_auc: float = Field(
        default=0.6, ge=0.5, lt=1, description="AUC of the dense probe below which no number of latents is sought."
    )
    max_split_latents: int = Field(default=16, ge=1, description="Most latents that a label is looked for in.")
    f1_jump: float = Field(default=0.03, ge=0, description="Gain of F1 by which a further latent belongs to a probe.")
    f1_gap: float = Field(default=0.05, ge=0, description="How near the dense probe's F1 counts as reaching it.")


class Absorption(Section):
    """First-letter absorption."""

    words_per_letter: int = Field(default=100, ge=10, description="Single-token words of each letter, at most.")
    examples: int = Field(default=10, ge=1, description="Solved examples before the word that is read.")
    example_sets: int = Field(
        default=32, ge=2, description="Sets of examples that words get by chance; those that share one share its cost."
    )
    test_share: float = Field(default=0.3, gt=0, lt=1, description="Share of each letter's words held out.")
    splits: int = Field(default=3, ge=2, description="Random splits into training and test words.")
    min_f1: float = Field(
        default=0.6, gt=0, lt=1, description="F1 on held-out words to be exceeded by a letter's probe."
    )
    min_letters: int = Field(default=20, ge=1, le=26, description="Such letters that make the result valid.")
    max_split_latents: int = Field(default=10, ge=1, description="Most latents that are taken to split a letter.")
    f1_jump: float = Field(default=0.03, ge=0, description="Gain of F1 by which a further latent splits a letter.")
    f1_gap: float = Field(default=0.05, ge=0, description="How near the dense probe's F1 counts as reaching it.")
