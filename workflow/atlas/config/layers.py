"""Lays configuration files over each other: key by key, but a mapping of another kind is replaced as a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

# Keys that decide which other keys a mapping has: of a source and a client, of a recipe, of a contender.
DISCRIMINATORS = ("kind", "architecture", "framework")


def replace_whole(merged: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """`merged` without what an earlier layer gave to a mapping that a later layer gives another kind.

    `layers` are the contents of the files, the first one lowest, of which Snakemake made `merged` key by key. Where a
    later one names another `kind`, `architecture` or `framework` than those below it, its mapping counts as a whole.
    Keys that no layer has are kept. Returns the configuration, and for each replaced mapping a sentence that names it
    and the keys that went.
    """
    notes: list[str] = []
    return _replaced(merged, list(layers), [], "", notes), notes


def _replaced(
    merged: Mapping[str, Any], kept: list[Mapping], dropped: list[Mapping], place: str, notes: list[str]
) -> dict[str, Any]:
    first, change = _last_change(kept)
    dropped, kept = dropped + kept[:first], kept[first:]
    stated = {key for layer in kept for key in layer}
    gone = [key for layer in dropped for key in layer if key in merged and key not in stated]
    if change:
        without = ", ".join(dict.fromkeys(gone)) or "none"
        notes.append(f"{place}: {change}, hence replaced as a whole; keys no longer there: {without}")
    result = {}
    for key, value in merged.items():
        if key in gone:
            continue
        if isinstance(value, Mapping):
            below = f"{place}.{key}".lstrip(".")
            value = _replaced(value, _mappings(kept, key), _mappings(dropped, key), below, notes)
        result[key] = value
    return result


def _last_change(layers: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Number of the last layer that names another kind than those below it, and what it changes; 0 and '' if none."""
    found, change = 0, ""
    for key in DISCRIMINATORS:
        named = None
        for number, layer in enumerate(layers):
            value = layer.get(key)
            if not isinstance(value, str):
                continue
            if named not in (None, value) and number >= found:
                found, change = number, f"{key} is {value!r} instead of {named!r}"
            named = value
    return found, change


def _mappings(layers: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """Return each layer's value at `key`. A value that is no mapping discards earlier ones, as in Snakemake's merge."""
    found: list[Mapping[str, Any]] = []
    for layer in layers:
        if isinstance(layer.get(key), Mapping):
            found.append(layer[key])
        elif key in layer:
            found = []
    return found


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Key by key, the last one wins, as Snakemake's --configfile does."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    return merged


def _merge(into: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        below = into.get(key, {})
        if isinstance(below, Mapping) or value:  # an empty mapping changes nothing, not even a value
            into[key] = dict(below) if isinstance(below, Mapping) else {}
            _merge(into[key], value)
