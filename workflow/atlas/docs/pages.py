"""Makes the tables of the pages in docs/ anew from the recorded results (``make docs``).

A table stands between ``<!-- table: NAME`` with its specification (tables.TableSpec, YAML) and
``<!-- end of table -->``. A test compares the pages with the files.
"""

import csv
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from atlas.docs.tables import DocsError, TableSpec, markdown
from atlas.files import read_plain_json, write_text

ROOT = Path(__file__).parents[3]
_WIDTH = 120
RESULTS = ROOT / "docs" / "results"
_BLOCK = re.compile(r"(<!-- (table: .*?)-->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def specs(page: Path) -> Iterator[TableSpec]:
    """The specifications of a page's tables. Raises DocsError that names the page."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield _parsed(found[2], page.name)


def page_text(old: str, page: str, results: Path = RESULTS) -> str:
    """A page with its tables made anew from the files in `results`."""

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}{table_text(_parsed(found[2], page), results)}\n{found[4]}"

    if old.count("<!-- table:") != len(_BLOCK.findall(old)):
        raise DocsError(
            f"{page}: a table is not closed; add `<!-- end of table -->` behind it, or `-->` behind its specification"
        )
    return _BLOCK.sub(made, old)


def table_text(spec: TableSpec, results: Path) -> str:
    """A table and the line that says where its numbers come from; without a file, how to get one."""
    path = results / f"{spec.table}.csv"
    if not path.exists():
        how = spec.how or f"snakemake --cores 2 -- results/{spec.table}.csv"
        return (
            f"*This version has no recorded results here. To fill this table: `{how}`, then record it "
            "(CONTRIBUTING.md).*"
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return f"{markdown(spec, rows, str(path))}\n\n{origin_text(spec.table, read_plain_json(path.with_suffix('.json')))}"


def origin_text(name: str, record: dict) -> str:
    """Return where the numbers of a recorded file come from, for readers."""
    machine = record["machine"]
    instructions = f" with {', '.join(machine['instructions'])}" if machine["instructions"] else ""
    return textwrap.fill(
        f"Numbers: [{name}.csv](results/{name}.csv), made on {machine['processor']}{instructions}, products in "
        f"{' and '.join(record['products'])}, torch {record['versions']['torch']}, commit {record['commit'][:10]}.",
        _WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _parsed(text: str, page: str) -> TableSpec:
    try:
        return TableSpec.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        first = text.splitlines()[0]
        raise DocsError(f"{page}, `{first}`: the specification of the table is not valid: {error}") from error


def main() -> None:
    """Write all pages that have tables."""
    for page in pages():
        old = page.read_text(encoding="utf-8")
        if (new := page_text(old, page.name)) != old:
            write_text(page, new)


if __name__ == "__main__":
    main()
