"""Faults and what they do: tests say it by a mark, docs/reliability.md shows it as a table.

``pytest --fault-table docs/reliability.md`` writes the table anew from the tests that passed.
"""

from pathlib import Path

import pytest

BEGIN, END = "<!-- faults: written by the tests -->\n", "<!-- end of faults -->\n"
HEADER = "| fault | stages | what happens |\n|---|---|---|\n"

Row = tuple[str, str, str]


def fault(stage: str, kind: str, outcome: str) -> pytest.MarkDecorator:
    """What `kind` of fault does to a `stage`, asserted by the test that has this mark."""
    return pytest.mark.fault(stage, kind, outcome)


def rows_of(item: pytest.Item) -> list[Row]:
    return [mark.args for mark in item.iter_markers("fault")]


def read_table(page: Path) -> set[Row]:
    """What the page's table says, one row a stage."""
    inside = page.read_text().split(BEGIN)[1].split(END)[0].removeprefix(HEADER)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines()]
    return {(stage, kind, outcome) for kind, stages, outcome in cells for stage in stages.split("; ")}


def write_table(page: Path, rows: list[Row]) -> None:
    """Stages that meet the same end share a line."""
    stages: dict[tuple[str, str], list[str]] = {}
    for stage, kind, outcome in dict.fromkeys(rows):
        stages.setdefault((kind, outcome), []).append(stage)
    lines = [f"| {kind} | {'; '.join(names)} | {outcome} |\n" for (kind, outcome), names in stages.items()]
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + HEADER + "".join(lines) + END + rest.split(END)[1])
