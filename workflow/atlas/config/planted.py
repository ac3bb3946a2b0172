"""Truths that are planted: activations with known features, drawn instead of captured from a language model."""

import math
from typing import Literal

from pydantic import Field, model_validator

from atlas.config.base import Section, Seed


class Frequency(Section):
    """Frequencies of features, from the most frequent one down."""

    law: Literal["constant", "log_uniform", "zipf"] = Field(
        description="'constant': all as often; 'log_uniform': drawn evenly between the logarithms of the two ends; "
        "'zipf': highest x (rank + 1)^-exponent, but at least lowest."
    )
    highest: float = Field(gt=0, lt=1, description="Probability of the most frequent feature.")
    lowest: float | None = Field(default=None, gt=0, lt=1, description="Of the rarest; 'constant' takes none.")
    exponent: float | None = Field(default=None, gt=0, description="How fast 'zipf' falls; the other laws take none.")

    @model_validator(mode="after")
    def _keys_of_the_law(self):
        if (self.lowest is None) != (self.law == "constant"):
            raise ValueError(f"law {self.law}: lowest is {self.lowest}; expected one unless the law is 'constant'")
        if self.lowest is not None and self.lowest > self.highest:
            raise ValueError(f"lowest is {self.lowest}: must be at most highest, {self.highest}")
        if (self.exponent is None) != (self.law != "zipf"):
            raise ValueError(f"law {self.law}: exponent is {self.exponent}; expected one for 'zipf' alone")
        return self


class Magnitude(Section):
    """Magnitude of a feature where it fires: always above 0."""

    law: Literal["log_normal", "normal"] = Field(
        default="log_normal", description="'log_normal': the mean times exp(spread x a standard normal number)."
    )
    frequent: float = Field(default=1.0, gt=0, description="Mean of the most frequent feature (median of log_normal).")
    rare: float = Field(default=1.0, gt=0, description="Of the rarest; ranks between are on a straight line.")
    spread: float = Field(default=0.25, ge=0, description="Standard deviation, of log_normal that of the logarithm.")


class Hierarchy(Section):
    """Trees of features: a child fires only where its parent does, and at most one child of a parent at a time."""

    roots: int = Field(ge=1, description="Trees; their roots are the most frequent features.")
    branches: int = Field(ge=2, description="Children of each parent.")
    depth: int = Field(ge=1, description="Levels below the roots.")
    scaled: bool = Field(default=False, description="A child's magnitude is multiplied by its parent's over the mean.")

    @property
    def n_features(self) -> int:
        """Features in all trees."""
        return self.roots * sum(self.branches**level for level in range(self.depth + 1))


class Correlation(Section):
    """Features that fire together more, or less, often than chance: a Gaussian copula of low rank."""

    rank: int = Field(ge=1, description="Hidden factors.")
    scale: float = Field(gt=0, lt=1, description="Share of a feature's copula variance that the factors carry.")


class PlantedSource(Section):
    """Activations with known features: row = sum of the directions of the features that fire, times magnitudes."""

    kind: Literal["planted"]
    n_features: int = Field(ge=2, description="Features; there may be more than d_model.")
    seed: Seed = Field(default=0, description="Of directions and frequencies.")
    frequency: Frequency
    magnitude: Magnitude = Field(default=Magnitude())
    hierarchy: Hierarchy | None = Field(default=None, description="null: every feature fires on its own.")
    correlation: Correlation | None = Field(
        default=None, description="Of roots, and of features in no tree. null: they are independent."
    )
    spread_steps: int = Field(
        default=0, ge=0, description="Steps that push directions apart; 0: uniform on the sphere, as they are drawn."
    )
    scored_features: int | None = Field(
        default=None,
        ge=1,
        description="Only this many features, the most frequent ones, are looked for. Without it a recipe with fewer "
        "latents than features is refused: it could not hold them all. null: all.",
    )

    @property
    def n_scored(self) -> int:
        """Features that are looked for."""
        return self.n_features if self.scored_features is None else self.scored_features

    @model_validator(mode="after")
    def _fits(self):
        if self.n_scored > self.n_features:
            raise ValueError(f"scored_features is {self.scored_features}: there are {self.n_features} features")
        if self.hierarchy is not None and self.hierarchy.n_features > self.n_features:
            raise ValueError(
                f"hierarchy has {self.hierarchy.n_features} features: must be at most n_features, {self.n_features}; "
                "lower roots, branches or depth"
            )
        mean = self.frequency.highest
        low, high = self.frequency.lowest, self.frequency.highest
        if self.frequency.law == "log_uniform" and low is not None:
            mean = (high - low) / math.log(high / low) if high > low else high
        if self.frequency.law != "zipf" and self.n_features * mean < 1:
            raise ValueError(
                f"frequency: {self.n_features} features fire {self.n_features * mean:.3g} at a time on average, hence "
                "most rows are 0; expected at least 1: raise highest or n_features"
            )
        return self


class SampleSource(Section):
    """Rows drawn from a planted model; they are no text."""

    kind: Literal["planted_sample"]
    seed: Seed = Field(default=0, description="Of what is drawn; each corpus needs one of its own.")
