"""List the files of a run that people open, for its last lines."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# Of a study, in the order in which they are read.
_TABLES = ("{study}.csv", "{study}_*.csv")
_FIGURES = ("figures/{study}.pdf", "figures/{study}_*.pdf")
_INDEX = "atlas/index.html"


def made_since(results: Path, studies: Iterable[str], started: float) -> list[str]:
    """Lines that name the tables, figures and pages written at or after `started` (seconds since 1970).

    Without new tables, figures or pages there is nothing to say. Pages of before, and the way to have some, are named
    beside new tables.
    """
    names, lines = list(studies), []
    for study in names:
        longer = [name for name in names if name.startswith(f"{study}_")]
        found = [
            [path for path in _written(results, study, patterns, started) if not _of_another(path, longer)]
            for patterns in (_TABLES, _FIGURES)
        ]
        for kind, paths in zip(("tables", "figures"), found, strict=True):
            if paths:
                lines.append(f"{study}, {kind}: {', '.join(map(str, paths))}")
        table = results / f"{study}.csv"
        if table in found[0] and (counts := _outcomes(table)):
            lines.append(f"{study}, verdicts: {counts} ({_why(results, study)})")
    index = results / _INDEX
    if index.is_file() and (lines or index.stat().st_mtime >= started):
        lines.append(f"pages: {index} (open it in a browser)")
    elif lines:
        lines.append(f"pages: none yet; `snakemake {index}` writes them")
    return lines


def _outcomes(table: Path) -> str:
    """Count each verdict; empty for a table without verdicts."""
    with table.open(newline="", encoding="utf-8") as stream:
        counts = Counter(row["outcome"] for row in csv.DictReader(stream) if row.get("outcome"))
    return ", ".join(f"{word} {count}" for word, count in counts.most_common())


def _why(results: Path, study: str) -> str:
    page = results / f"verdicts/{study}.md"
    return f"{page} says why" if page.is_file() else f"why: `snakemake {page}`"


def _written(results: Path, study: str, patterns: Iterable[str], started: float) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(results.glob(pattern.format(study=study)))]
    return [path for path in found if path.stat().st_mtime >= started]


def _of_another(path: Path, longer: Iterable[str]) -> bool:
    """Return whether a file of study `a_b` is taken for one of study `a`."""
    return any(path.stem == name or path.stem.startswith(f"{name}_") for name in longer)
