"""A table of a page: which rows of a results file it shows, how they are grouped, and how a cell is written."""

import json
import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from atlas.config.base import Section
from atlas.errors import AtlasError

UNDEFINED = "–"
_NUMBER = re.compile(r"(?P<digits>\d)(?P<unit>[%p]?)")
Row = Mapping[str, str]


class DocsError(AtlasError):
    """A page, a table in it or a results file is not as expected."""


class TableSpec(Section):
    """The comment above a generated table. Templates are text with columns in braces: `{k}`, `{score:3}`, `{share:1%}`.

    `{score:3}` is the number with three digits after the point, `{share:1%}` times 100 with a percent sign,
    `{share:1p}` without it; `{shares[good]:1%}` reads a column that holds JSON.
    """

    table: str = Field(description="name of the file in docs/results, without .csv")
    where: dict[str, str | list[str]] = Field(default_factory=dict, description="column → value or values of its rows")
    across: str | None = Field(default=None, description="heading of the columns, one for each different text of it")
    down: str | None = Field(default=None, description="heading of the lines, one for each different text of it")
    cells: dict[str, str] = Field(description="title → template; with `across` and `down` exactly one")
    corner: str = Field(default="", description="heading of the first column")
    how: str = Field(default="", description="command that makes the file, where it is not one of the name alone")
    join: str = Field(default=", ", description="between values of rows that fall into one cell, in order of the file")

    span: bool = Field(default=False, description="show the smallest and the largest of a cell's values instead of all")

    @model_validator(mode="after")
    def _has_one_layout(self) -> "TableSpec":
        if self.across is None and self.down is None:
            raise ValueError("a table needs `across`, `down` or both")
        if self.across is not None and self.down is not None and len(self.cells) != 1:
            raise ValueError(f"`across` and `down` leave room for one template in a cell, not {len(self.cells)}")
        return self

    def columns(self) -> list[str]:
        """Columns of the file that the table reads."""
        templates = [*self.cells.values(), *filter(None, (self.across, self.down))]
        return list(dict.fromkeys([*self.where, *(name for one in templates for name in fields(one))]))


def fields(template: str) -> list[str]:
    """Columns that a template names."""
    found = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    return [name.split("[")[0] for name in found]


def markdown(spec: TableSpec, rows: Sequence[Row], origin: str) -> str:
    """The table as Markdown. Raises DocsError that names `origin` when a column or all rows are missing."""
    if missing := sorted(set(spec.columns()) - set(rows[0] if rows else ())):
        raise DocsError(f"{origin}: no column {', '.join(missing)}, which the table shows; record the results anew")
    kept = [row for row in rows if all(_matches(row[name], wanted) for name, wanted in spec.where.items())]
    if not kept:
        raise DocsError(f"{origin}: no row where {spec.where}; correct `where`, or record the results anew")
    if spec.across is None:
        heads, lines = list(spec.cells), _groups(spec.down, kept)
        body = [[title, *(_cell(spec, one, group) for one in spec.cells.values())] for title, group in lines.items()]
    elif spec.down is None:
        groups = _groups(spec.across, kept)
        heads = list(groups)
        body = [[title, *(_cell(spec, one, group) for group in groups.values())] for title, one in spec.cells.items()]
    else:
        heads = list(_groups(spec.across, kept))
        (template,) = spec.cells.values()
        body = []
        for title, line in _groups(spec.down, kept).items():
            groups = _groups(spec.across, line)
            body.append([title, *(_cell(spec, template, groups.get(head, [])) for head in heads)])
    table = [[spec.corner, *heads], ["---"] * (1 + len(heads)), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in table)


def _matches(value: str, wanted: str | list[str]) -> bool:
    return value == wanted if isinstance(wanted, str) else value in wanted


def _groups(template: str | None, rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(filled(template or "", row), []).append(row)
    return groups


def _cell(spec: TableSpec, template: str, rows: Sequence[Row]) -> str:
    """Return what the rows of a cell say, once if they agree."""
    if spec.span and fields(template) and all(_is_number(row[fields(template)[0]]) for row in rows):
        ordered = sorted(rows, key=lambda row: float(row[fields(template)[0]]))
        ends = [filled(template, row) for row in (ordered[:1] + ordered[-1:])]
        return " to ".join(dict.fromkeys(ends))
    texts = [filled(template, row) for row in rows]
    return spec.join.join(dict.fromkeys(texts) if spec.span or len(set(texts)) == 1 else texts)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text) is not None


class _Columns(string.Formatter):
    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        name, _, key = field_name.partition("[")
        value = kwargs[name]
        if key and value:
            value = str(json.loads(value).get(key.rstrip("]"), ""))
        return value, name

    def format_field(self, value: Any, format_spec: str) -> str:
        return number(value, format_spec) if format_spec else str(value) or UNDEFINED


def filled(template: str, row: Row) -> str:
    """A template with the row's values in it."""
    return _Columns().vformat(template, (), dict(row))


def number(text: str, form: str) -> str:
    """A number of a results file as pages write it: no zero before the point, a minus sign, commas in thousands."""
    kind = _NUMBER.fullmatch(form)
    if kind is None:
        raise DocsError(f"number format {form!r}: expected digits after the point, then %, p or nothing, as in 1%")
    if text == "":
        return UNDEFINED
    value = float(text) * (100 if kind["unit"] else 1)
    if not math.isfinite(value):
        raise DocsError(f"value {text!r} is not finite; results files leave such cells empty")
    if value == 0:
        return "0 %" if kind["unit"] == "%" else "0"
    written = f"{abs(value):,.{int(kind['digits'])}f}"
    if written.startswith("0."):
        written = written[1:]
    sign = "−" if value < 0 and re.search("[1-9]", written) else ""
    return f"{sign}{written}{' %' if kind['unit'] == '%' else ''}"
