"""The validator's faults as sentences for the author of a configuration: key, value, what is expected."""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

# Faults that only follow from another one.
_FOLLOWING = ("default_factory_not_called",)
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "keys with values",
}
_BOUNDS = {"greater_than_equal": "at least", "greater_than": "more than", "less_than_equal": "at most"}
_BOUNDS |= {"less_than": "less than"}


# Faults of the two branches of a union of text and list.
_OTHER_BRANCH = {"string_type": "tuple_type", "tuple_type": "string_type"}


def describe(faults: Sequence[Mapping[str, Any]], section: type[BaseModel], layers: Mapping[str, Any]) -> list[str]:
    """One sentence for each fault that pydantic found in `section`; those that only follow from another are left out.

    With several `layers`, name of a file → its content, each sentence ends with the last file that has the key.
    """
    placed = [(*_walk(section, fault["loc"]), fault) for fault in faults]
    sentences = []
    for place, expected, fault in placed:
        others = [(where, other["type"]) for where, _, other in placed if other is not fault]
        if (place, _OTHER_BRANCH.get(fault["type"])) in others and all(kind in _OTHER_BRANCH for _, kind in others):
            sentences.append(f"{_shown_place(place)}: {shown(fault['input'])}; expected text, or a list of texts")
        elif not _follows(place, fault["type"], others):
            key = _shown_place(place)
            name = _file_of(place, layers) if len(layers) > 1 else None
            sentence = f"{key}: {_sentence(expected, fault)}" if key else _sentence(expected, fault)
            sentences.append(f"{sentence} (in {name})" if name else sentence)
    return list(dict.fromkeys(sentences))


def shown(value: Any) -> str:
    """A value as its author wrote it, if it is short."""
    if isinstance(value, Mapping):
        return "keys with values" if value else "empty"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return {None: "null", True: "true", False: "false"}.get(value, repr(value)) if _is_plain(value) else repr(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _follows(place: tuple, kind: str, others: Sequence[tuple[tuple, str]]) -> bool:
    """Return whether a fault only follows from another one: of an entry of the same list, or of another branch of a
    union.
    """
    if kind in _FOLLOWING:
        return True
    if kind == "too_short":
        return any(len(where) > len(place) and where[: len(place)] == place for where, _ in others)
    # Of a union of text and list: what is said of the branch that was meant stays.
    return kind in ("string_type", "tuple_type") and any(where == place and other != kind for where, other in others)


def _sentence(expected: Any, fault: Mapping[str, Any]) -> str:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "missing":
        return "required key is missing"
    if kind == "extra_forbidden":
        return f"{_value(value)}unknown key; {_known(fault['loc'][-1], _keys(expected))}"
    if kind == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        names = [option for option in get_args(_plain(expected)) if isinstance(option, str)]
        return f"{shown(value)} is not one of {context['expected']}{_near(value, names)}"
    if kind == "union_tag_not_found":
        return f"needs a key {context['discriminator']}, which is one of {_tags(expected)}"
    if kind == "union_tag_invalid":
        return f"{context['discriminator'].strip(chr(39))} is {context['tag']!r}; expected {context['expected_tags']}"
    if kind == "too_short":
        least = context["min_length"]
        return f"{shown(value)}; expected at least {least} {'entry' if least == 1 else 'entries'}"
    if kind in _BOUNDS:
        return f"{shown(value)}; expected {_BOUNDS[kind]} {next(iter(context.values()))}"
    if kind == "string_pattern_mismatch":
        return f"{shown(value)}; expected {_form(context['pattern'])}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{shown(value)}; expected keys with values: {_some_keys(expected)}"
    family = kind.split("_")[0]
    if family in _EXPECTED:
        return f"{shown(value)}; expected {_EXPECTED[family]}{_hint(family, value)}"
    return f"{_value(value)}{fault['msg']}"


def _hint(family: str, value: Any) -> str:
    if family == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return f'; write "{value}", in quotes'
    if family == "string" and isinstance(value, bool):
        return "; write it in quotes"
    if family in ("tuple", "list") and isinstance(value, str | int | float) and not isinstance(value, bool):
        return f"; write [{value}]"
    if family == "tuple" and isinstance(value, Mapping):
        return "; begin each entry with '- '"
    return ""


def _value(value: Any) -> str:
    return "" if isinstance(value, Mapping | list | tuple) else f"{shown(value)} "


def _form(pattern: str) -> str:
    names = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    return "letters, digits, '.', '_' and '-', no space or slash" if pattern == names else f"text like {pattern}"


def _known(key: Any, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(key), keys, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of {', '.join(keys)}"


def _some_keys(expected: Any) -> str:
    """Return what a mapping must have; what it may have where it must have nothing."""
    options = _options(expected)
    if len(options) > 1:
        return f"among them kind, which is one of {_tags(expected)}"
    fields = getattr(options[0], "model_fields", {})
    needed = [key for key, field in fields.items() if field.is_required()]
    return f"at least {', '.join(needed)}" if needed else ", ".join(fields)


def _near(value: Any, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _walk(section: type[BaseModel], loc: Sequence[Any]) -> tuple[tuple, Any]:
    """The keys of a fault's place, without the branches of unions that pydantic puts between; the type expected there.

    Of an unknown key the type is that of the section around it.
    """
    place, expected = [], section
    for part in loc:
        options = _options(expected)
        tagged = [option for option in options if len(options) > 1 and _tag_of(option) == part]
        below = list(_below(expected, part))
        if tagged:
            expected = tagged[0]
        elif below:
            place.append(part)
            expected = below[0]
        elif part == "[key]" or any(_branch(option) == str(part).split("[")[0] for option in options):
            pass
        else:
            place.append(part)
    return tuple(place), expected


def _below(expected: Any, part: Any) -> Iterator[Any]:
    for option in _options(expected):
        if isinstance(option, type) and issubclass(option, BaseModel):
            if part in option.model_fields:
                yield option.model_fields[part].annotation
        elif get_origin(option) is dict and part != "[key]":
            yield get_args(option)[1]
        elif get_origin(option) in (tuple, list) and isinstance(part, int):
            yield get_args(option)[0]


def _options(expected: Any) -> list[Any]:
    """Members of a union without None; the type alone where it is none."""
    expected = _plain(expected)
    if get_origin(expected) in (Union, types.UnionType):
        return [option for member in get_args(expected) for option in _options(member) if option is not type(None)]
    return [expected]


def _plain(expected: Any) -> Any:
    while get_origin(expected) is Annotated:
        expected = get_args(expected)[0]
    return expected


def _branch(option: Any) -> str:
    """Return what pydantic calls a branch of a union, up to its brackets."""
    return "constrained-str" if option is str else getattr(get_origin(option), "__name__", "")


def _tag_of(option: Any) -> str | None:
    """The kind that a member of a discriminated union has."""
    fields = getattr(option, "model_fields", {})
    kinds = get_args(fields["kind"].annotation) if "kind" in fields else ()
    return kinds[0] if len(kinds) == 1 and get_origin(fields["kind"].annotation) is Literal else None


def _tags(expected: Any) -> str:
    return ", ".join(repr(_tag_of(option)) for option in _options(expected))


def _keys(expected: Any) -> list[str]:
    return list(dict.fromkeys(key for option in _options(expected) for key in getattr(option, "model_fields", {})))


def _shown_place(place: Sequence[Any]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _file_of(place: Sequence[Any], layers: Mapping[str, Any]) -> str | None:
    """The last file that has the longest part of a place; None where none has its first key."""
    depths = {}
    for name, content in layers.items():
        depth = 0
        for part in place:
            inside = isinstance(content, Mapping) and part in content
            if not inside and not (isinstance(content, list) and isinstance(part, int) and part < len(content)):
                break
            content, depth = content[part], depth + 1
        depths[name] = depth
    best = max(depths.values(), default=0)
    return [name for name, depth in depths.items() if depth == best][-1] if best else None
