"""Reads YAML files strictly: what YAML 1.1 silently reads as something else is an error that names the line."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from atlas.errors import AtlasError, ConfigError

_BASE_60 = re.compile(r"[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?")
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NO_NAMES = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
# What to do about a problem of the parser, by words of its message.
_REMEDIES = {
    "mapping values are not allowed": "quote a text that has ': ' in it, and indent the keys of one mapping alike",
    "expected '<document start>'": "indent the keys of one mapping alike",
    "expected <block end>": "indent the keys of one mapping alike",
    "found another document": "remove the line '---', a file is one document",
    "could not determine a constructor": "remove the tag, plain values are enough",
}


def read_yaml(
    path: Path | str,
    error: type[AtlasError] = ConfigError,
    remedy: str = "",
    meant: Callable[[str, str], str | None] = lambda place, text: None,
) -> Any:
    """Read one YAML (or JSON) document.

    Raises `error` with file, line and `remedy` where the text is not YAML or not UTF-8. The same holds where YAML 1.1
    silently reads something else: a key that occurs twice in one mapping (the last one would win), a time such as
    24:00 (a number to base 60), a number with a leading zero (to base 8), an unquoted key true, false, no or null.
    `meant` may say, by key and text, what to write for such a number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as fault:
        raise error(f"{path}: there is no such file{_then(remedy)}") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{path}: not UTF-8 (byte {fault.start}); save it as UTF-8{_then(remedy)}") from fault
    try:
        loader = yaml.SafeLoader(_without_tabs(text, path))
        root = loader.get_single_node()
        faults = [] if root is None else sorted(_faults(root, meant))
        if faults:
            raise error("\n".join(f"{path}:{line}: {fault}" for line, fault in faults) + _then(remedy))
        return None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as fault:
        raise error(f"{path}{_problem(fault, text)}{_then(remedy)}") from fault
    except yaml.reader.ReaderError as fault:
        line = text.count("\n", 0, fault.position) + 1
        raise error(f"{path}:{line}: not YAML: it has the character {fault.character:#06x}, remove it") from fault


def _without_tabs(text: str, path: Path | str) -> str:
    """JSON may be indented by tabs, which YAML refuses; within a string JSON has none."""
    return text.replace("\t", " ") if Path(path).suffix == ".json" else text


def _faults(root: yaml.Node, meant: Callable[[str, str], str | None]) -> Iterator[tuple[int, str]]:
    """Line, what is wrong and what to do; each node once, because an alias is the node of its anchor."""
    seen: set[int] = set()
    nodes = [(root, "")]
    while nodes:
        node, place = nodes.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _key_faults(node, place)
            nodes += [(value, f"{place}.{key.value}".lstrip(".")) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += [(value, f"{place}[{number}]") for number, value in enumerate(node.value)]
        elif isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and not node.style:
            yield from _number_faults(node, place, meant)


def _key_faults(node: yaml.MappingNode, place: str) -> Iterator[tuple[int, str]]:
    first: dict[tuple[str, str], yaml.Node] = {}
    where = f"in {place!r}" if place else "at the top level"
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        before = first.setdefault((key.tag, key.value), key)
        if before is not key:
            remedy = "rename one of them, or merge the two; YAML would keep only the last"
            if key.value == "<<":
                remedy = "write '<<: [*one, *other]'"
            yield _line(key), f"key {key.value!r} occurs twice {where}, first in line {_line(before)}; {remedy}"
        if key.tag in _NO_NAMES and not key.style:
            read = "null" if key.tag.endswith("null") else "true or false"
            yield (
                _line(key),
                f'key {key.value} {where} is read as {read}, not as a name; write "{key.value}", in quotes',
            )


def _number_faults(
    node: yaml.ScalarNode, place: str, meant: Callable[[str, str], str | None]
) -> Iterator[tuple[int, str]]:
    base = 60 if _BASE_60.fullmatch(node.value) else 8 if _OCTAL.fullmatch(node.value) else None
    if base and node.value.strip("+-_0"):
        read, remove = yaml.safe_load(node.value), "colons" if base == 60 else "the zero"
        write = meant(place, node.value) or f'write "{node.value}" for text, or the intended number without {remove}'
        yield _line(node), f"{place} is {node.value}, which YAML reads as {read} (a number to base {base}); {write}"


def _problem(fault: yaml.MarkedYAMLError, text: str) -> str:
    """``:<line>: not YAML: …``, with what the parser was at."""
    mark = fault.problem_mark or fault.context_mark
    if mark is None:
        return f": not YAML: {fault.problem}"
    said = f":{mark.line + 1}: not YAML at column {mark.column + 1}: {fault.problem}"
    if fault.context and fault.context_mark and fault.context_mark.line != mark.line:
        said += f" ({fault.context}, which begins in line {fault.context_mark.line + 1})"
    said += next((f"; {remedy}" for words, remedy in _REMEDIES.items() if words in str(fault.problem)), "")
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line]:
        said += "; the line has a tab, and YAML is indented by spaces alone"
    return said


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _then(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
