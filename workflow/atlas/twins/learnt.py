"""One word for what a measure says of learning: is the SAE better than its best twin?"""

from collections.abc import Mapping, Sequence

YES, NO, UNRESOLVED, UNTESTED = "yes", "no", "unresolved", "untested"
# Beside an outcome stands the word of the measure that outcomes rest on.
DECIDING = "explained_variance_regular"


def learnt(interval: Sequence[float] | None) -> str:
    """Say `yes` where the interval of the difference over the best twin is above 0, and `no` where it is below.

    Else `unresolved`: the interval holds 0, or there is none.
    """
    if interval is None:
        return UNRESOLVED
    low, high = interval
    return YES if low > 0 else NO if high < 0 else UNRESOLVED


def best_twin(values: Mapping[str, float | None], higher_is_better: bool) -> str | None:
    """Name the kind of twin with the best value, the first of equal ones; None where none has a value."""
    known = {kind: value for kind, value in values.items() if value is not None}
    if not known:
        return None
    return (max if higher_is_better else min)(known, key=known.__getitem__)


def with_learnt(outcome: str, word: str) -> str:
    """Write an outcome as it is shown: never without the word for what was learnt."""
    return f"{outcome} · learnt {word}"
