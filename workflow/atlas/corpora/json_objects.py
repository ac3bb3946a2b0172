"""Describe a JSON file that begins with an object where an array of records is expected, and how to make it one."""

import json
import re

import ijson


def describe_object(beginning: bytes, name: str) -> str:
    """The fault and its remedy, from the first bytes of the file `name`."""
    lines = [line for line in beginning.splitlines() if line.strip()]
    if len(lines) > 1 and lines[1].lstrip().startswith(b"{") and _is_object(lines[0]):
        return "expected a JSON array of records, found JSON lines; set format: jsonl"
    fields, lengths, texts, keys = _arrays(beginning)
    if not fields:
        return (
            f"expected a JSON array of records, found one object with the fields {keys[:8]}; if it is one record, "
            f"write it on one line and set format: jsonl (jq -c . {name} > records.jsonl)"
        )
    listed = "; ".join(f"{_path(place)} with {', '.join(own[:6])}" for place, own in list(fields.items())[:6])
    place = max(fields, key=lambda place: lengths.get(place, 0))
    command, advice = _command(place, texts, fields)
    return (
        f"expected a JSON array of records, found one object; arrays of objects in it: {listed}. Write those that are "
        f"documents as JSON lines, for example: jq -c '{command}' {name} > records.jsonl{advice}"
    )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _arrays(
    beginning: bytes,
) -> tuple[dict[str, list[str]], dict[str, int], dict[str, list[str]], list[str]]:
    """List every array of objects by ijson's prefix: fields, characters of text in them, fields with text; and the
    fields of the whole object.
    """
    fields: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    lengths: dict[str, int] = {}
    keys: list[str] = []
    try:
        for prefix, event, value in ijson.parse(beginning):
            if event == "map_key" and prefix == "":
                keys.append(value)
            elif event == "map_key" and prefix.endswith(".item"):
                own = fields.setdefault(prefix, [])
                if value not in own:
                    own.append(value)
            elif event == "string" and (place := prefix.rpartition(".")[0]) in fields:
                lengths[place] = lengths.get(place, 0) + len(value)
                texts.setdefault(place, []).append(prefix.rpartition(".")[2])
    except ijson.JSONError:
        pass  # the beginning ends somewhere
    return fields, lengths, texts, keys


def _command(place: str, texts: dict[str, list[str]], fields: dict[str, list[str]]) -> tuple[str, str]:
    """A jq program that writes the objects of an array, and what to set so that parts of one whole stay together."""
    parent = next((other for other in fields if other != place and place.startswith(f"{other}.")), None)
    name = next((field for field in texts.get(parent, []) if field.isidentifier()), None) if parent else None
    if name is None or parent is None:
        return _path(place), ""
    return (
        f"{_path(parent)} | {{{name}}} + {_path(place.removeprefix(parent))}",
        f"; set group_field: {name}, so that parts of one are on one side of the split",
    )


def _path(place: str) -> str:
    """An ijson prefix as a jq path."""
    found = ""
    for part in place.strip(".").split("."):
        if part == "item":
            found += "[]"
        else:
            found += f".{part}" if re.fullmatch(r"[A-Za-z_]\w*", part) else f".{json.dumps(part)}"
    return found
