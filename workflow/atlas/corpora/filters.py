"""Choose the records of a source that belong to a corpus."""

import re
from collections.abc import Callable
from typing import Any

from atlas.config.corpora import Criterion, Filter
from atlas.errors import SourceError

Test = Callable[[dict[str, Any], str], bool]

_WORD = re.compile(r"\w+")


def make_filter(filter_: Filter | None) -> Test:
    """A test of (record, where it is): whether the record is kept. Compiled once, before anything is read."""
    if filter_ is None:
        return lambda record, where: True
    tests = [_make_test(criterion) for criterion in filter_.any_of]
    return lambda record, where: any(test(record, where) for test in tests) != filter_.invert


def vocabulary_density(text: str, words: re.Pattern[str]) -> float:
    """Occurrences of `words` per 1000 words of `text`; 0 for text without words."""
    n_words = sum(1 for _ in _WORD.finditer(text))
    return 1000 * sum(1 for _ in words.finditer(text)) / n_words if n_words else 0.0


def vocabulary_pattern(vocabulary: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the words or phrases, whole and without regard to case."""
    return re.compile(r"\b(?:" + "|".join(map(re.escape, vocabulary)) + r")\b", re.IGNORECASE)


def _make_test(criterion: Criterion) -> Test:
    if criterion.pattern is not None:
        pattern = re.compile(criterion.pattern, re.IGNORECASE)
        return lambda record, where: pattern.search(_field(record, criterion.field, where)) is not None
    words = vocabulary_pattern(criterion.vocabulary)

    def dense(record: dict[str, Any], where: str) -> bool:
        return vocabulary_density(_field(record, criterion.field, where), words) >= criterion.min_per_1000_words

    return dense


def _field(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise SourceError(f"{where}: filter needs field {field!r}; the record has {sorted(record)}")
    value = record[field]
    return value if isinstance(value, str) else "" if value is None else str(value)
