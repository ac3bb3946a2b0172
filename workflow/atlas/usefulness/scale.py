"""A measure between the two ends of its scale, and the word for it. docs/metrics.md, section 20."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from atlas.intervals import difference_interval
from atlas.twins.learnt import NO, UNRESOLVED, UNTESTED, YES

# Of the way from floor to ceiling: below it a number is nearer to that of random directions.
HALFWAY = 0.5
LOSS, COHERENCE, STABILITY, LABELS, LEARNT = MEASURES = ("loss", "coherence", "stability", "labels", "learnt")
OF_LATENTS = (COHERENCE, STABILITY, LABELS)


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval [low, high]; None without one. A convention is its own interval."""

    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def exactly(cls, value: float) -> "Number":
        """A number that was not measured."""
        return cls(value, (value, value))

    @classmethod
    def of(cls, value: float | None, interval: list[float] | None) -> "Number | None":
        """As results have it; None without a value."""
        return None if value is None else cls(value, None if interval is None else (interval[0], interval[1]))

    def less(self, other: "Number") -> "Number":
        """This less another one, as if they were independent; without an interval unless both have one."""
        if self.interval is None or other.interval is None:
            return Number(self.value - other.value)
        low, high = difference_interval(other.value, *other.interval, self.value, *self.interval)
        return Number(self.value - other.value, (float(low), float(high)))


@dataclass(frozen=True)
class OverTwin:
    """The best twin of an SAE in a measure, and by how much the SAE is better."""

    kind: str
    better_by: Number


@dataclass(frozen=True)
class Scale:
    """A measure of one SAE with what it is held against; `reason` says why it is not tested."""

    value: Number | None = None
    floor: Number | None = None
    ceiling: Number | None = None
    threshold: Number | None = None
    twin: OverTwin | None = None
    reason: str | None = None

    @property
    def word(self) -> str:
        """`yes`, `no`, `unresolved` or `untested`."""
        if self.reason is not None or self.value is None or self.threshold is None:
            return UNTESTED
        held = [self.value.less(self.threshold), *([self.twin.better_by] if self.twin else [])]
        ends = [each.interval for each in held]
        if any(each is not None and each[1] < 0 for each in ends):
            return NO
        return YES if all(each is not None and each[0] > 0 for each in ends) else UNRESOLVED

    @property
    def of_the_way(self) -> float | None:
        """Where the value lies between floor (0) and ceiling (1); None where the measure is not tested."""
        if self.word == UNTESTED or self.value is None or self.floor is None or self.ceiling is None:
            return None
        return (self.value.value - self.floor.value) / (self.ceiling.value - self.floor.value)


def halfway(value: Number | None, floor: Number | None, ceiling: Number | None, twin: OverTwin | None = None) -> Scale:
    """Hold a measure against the middle between floor and ceiling.

    Not tested without a value or an end, or where the ceiling's interval is not above the floor's.
    """
    for name, number in (("value", value), ("floor", floor), ("ceiling", ceiling)):
        if number is None:
            return Scale(value, floor, ceiling, reason=f"it has no {name}")
    if floor.interval is None or ceiling.interval is None or ceiling.interval[0] <= floor.interval[1]:
        reason = (
            f"its scale has no room: the ceiling is {_said(ceiling)}, the floor {_said(floor)}; planted latents of the "
            "evaluation text are not told from random directions"
        )
        return Scale(value, floor, ceiling, reason=reason)
    return Scale(value, floor, ceiling, _middle(floor, ceiling), twin)


def _middle(floor: Number, ceiling: Number) -> Number:
    """The threshold; its interval combines those of both ends by their distances from the values."""
    value = floor.value + HALFWAY * (ceiling.value - floor.value)
    down, up = (
        np.hypot(*(HALFWAY * (each.interval[side] - each.value) for each in (floor, ceiling))) for side in (0, 1)
    )
    return Number(value, (float(value - down), float(value + up)))


def _said(number: Number) -> str:
    ends = "" if number.interval is None else f" [{number.interval[0]:.3g}, {number.interval[1]:.3g}]"
    return f"{number.value:.3g}{ends}"


def useful(words: Mapping[str, str]) -> str:
    """One word for all measures (measure -> word).

    `no` where one says no; `untested` without the loss, or without any measure of latents: reconstruction alone says
    nothing of a reader; else `unresolved` where one is, and `yes` where every tested one says yes.
    """
    if NO in words.values():
        return NO
    if words[LOSS] == UNTESTED or all(words[name] == UNTESTED for name in OF_LATENTS):
        return UNTESTED
    return UNRESOLVED if UNRESOLVED in words.values() else YES


def untested(words: Mapping[str, str]) -> list[str]:
    """Measures that were not tested."""
    return [name for name, word in words.items() if word == UNTESTED]


def with_useful(outcome: str, word: str, missing: list[str]) -> str:
    """Write the word behind an outcome; a `yes` names the measures that were not tested."""
    said = f" ({', '.join(missing)} untested)" if missing and word == YES else ""
    return f"{outcome} · useful {word}{said}"
