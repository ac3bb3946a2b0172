"""Mixes: what share of training rows comes from which corpus."""

from pydantic import Field, model_validator

from atlas.config.base import Name, Section


class Phase(Section):
    """Weights that hold until a share of training is done."""

    until: float = Field(gt=0, le=1, description="End of the phase as a share of all steps.")
    weights: dict[Name, float] = Field(min_length=1, description="Share of each corpus; sums to 1.")

    @model_validator(mode="after")
    def _shares(self):
        total = sum(self.weights.values())
        if any(weight < 0 for weight in self.weights.values()) or abs(total - 1) > 1e-6:
            raise ValueError(f"weights {self.weights} sum to {total:g}: shares must be ≥ 0 and sum to 1")
        return self


class Mix(Section):
    """Share of training rows of each corpus; constant, or a curriculum of phases."""

    phases: tuple[Phase, ...] = Field(min_length=1, description="One phase until 1.0, or several: a curriculum.")

    @model_validator(mode="after")
    def _phases_cover_training(self):
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError(f"phases end at {ends}: ends must increase and the last must be 1.0")
        return self

    @property
    def corpora(self) -> tuple[str, ...]:
        """Every corpus that is drawn from, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.weights))
