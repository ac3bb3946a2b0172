"""Cut a text file into documents: the file, a block between blank lines, or a section under a heading."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from atlas.errors import SourceError

TextUnit = Literal["file", "blank_line", "heading"]

# Markdown, and wikitext with or without spaces between its marks (``= = Section = =``).
_HASHES = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*?)[ \t]*#*[ \t]*$")
_EQUALS = re.compile(r"\s*((?:=[ \t]?)+)[ \t]*([^=\s].*?)[ \t]*((?:=[ \t]?)+)\s*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True)
class TextUnits:
    """The unit of text files, None where the configuration names none; the level of headings that begin a section.

    `several` says that the source has several text files, and `file` is the name of one in its source: a path would
    make the split depend on where the source lies.
    """

    unit: TextUnit | None = None
    heading_level: int | None = None
    several: bool = False
    file: str = ""


class TextRecord(dict[str, Any]):
    """A record of a text file; `larger_unit` names what it is part of, and is empty where that is unknown."""

    larger_unit: str = ""


def text_records(lines: TextIO, origin: str, units: TextUnits, longest: int) -> Iterator[TextRecord]:
    """Records with `text`, `file` and, but for whole files, `heading`.

    Raises SourceError when a single file comes without a unit, a document has more than `longest` characters, or a
    file that is to be divided at headings has none.
    """
    unit = units.unit or ("file" if units.several else None)
    if unit is None:
        raise SourceError(
            f"{origin}: a single text file; set text_unit to what a document of it is: 'blank_line' (blocks between "
            "blank lines), 'heading' (sections), or 'file'"
        )
    if unit == "file":
        text = lines.read(longest + 1)
        _check_length(len(text), origin, longest)
        yield _record(text, units.file, None, "")
        return
    yield from _parts(lines, origin, units, unit, longest)


def _parts(lines: TextIO, origin: str, units: TextUnits, unit: str, longest: int) -> Iterator[TextRecord]:
    part: list[str] = []
    held, sections, title, fenced, level = 0, 0, "", False, units.heading_level

    def larger() -> str:
        if units.several:
            return units.file
        # Before the first heading nothing says what belongs together.
        return f"{units.file}#{sections}" if unit == "blank_line" and sections else ""

    while line := lines.readline(longest + 1):
        found = None if fenced else heading(line)
        begins = found is not None and (level is None or found[0] <= level)
        ends = begins if unit == "heading" else begins or not line.strip()
        if ends and any(each.strip() for each in part):
            yield _record("".join(part).rstrip("\n"), units.file, title, larger())
        if ends:
            part, held = [], 0
        if found is not None and begins:
            # Without a level, a section begins with each heading that is no deeper than all before it.
            level = found[0] if units.heading_level is None else level
            sections, title = sections + 1, found[1]
        if _FENCE.match(line):
            fenced = not fenced
        part.append(line)
        held += len(line)
        _check_length(held, f"{origin}: the document after section {sections}", longest)
        if unit == "blank_line" and not line.strip():
            part, held = [], 0
    if any(each.strip() for each in part):
        yield _record("".join(part).rstrip("\n"), units.file, title, larger())
    if unit == "heading" and not sections:
        wanted = "" if units.heading_level is None else f" of level {units.heading_level} or above"
        raise SourceError(
            f"{origin}: no heading{wanted} ('# Title' or '= Title =') in the file; set heading_level, or text_unit to "
            "'file' or 'blank_line'"
        )


def heading(line: str) -> tuple[int, str] | None:
    """Level and title of a heading line."""
    if match := _HASHES.match(line.rstrip("\r\n")):
        return len(match[1]), match[2]
    match = _EQUALS.match(line)
    if match and match[1].count("=") == match[3].count("="):
        return match[1].count("="), match[2]
    return None


def _record(text: str, file: str, title: str | None, larger_unit: str) -> TextRecord:
    record = TextRecord(text=text, file=file)
    if title is not None:
        record["heading"] = title
    record.larger_unit = larger_unit
    return record


def _check_length(found: int, where: str, longest: int) -> None:
    if found > longest:
        raise SourceError(
            f"{where} has more than {longest:,} characters, too much for one document; divide it, or set text_unit to "
            "a smaller unit"
        )
