"""Run cards as rows for people, and in what two of them differ."""

from collections.abc import Iterator, Mapping
from typing import Any

# Of a card's sections those that are results of the run, not its settings.
RESULTS = ("outcomes", "cost", "warnings", "drawn_shares", "epochs", "mixing", "tokens", "near_duplicates")


def flat(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields of a card by dotted name, in its order; lists on one line."""
    for key, value in card.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, _text(value)


def sections(card: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of a card, each with its fields; single fields come together in a first section without a name."""
    single = {key: value for key, value in card.items() if not isinstance(value, Mapping)}
    found = [("", list(flat(single)))] if single else []
    return found + [(key, list(flat(value))) for key, value in card.items() if isinstance(value, Mapping) and value]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """(name, first, second) of all fields that are not the same; None where a card lacks the field."""
    one, other = dict(flat(first)), dict(flat(second))
    names = dict.fromkeys([*one, *other])
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value) if value else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items()) if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
