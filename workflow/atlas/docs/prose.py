"""Rules of plain English that a program can check: docstrings, error texts and pages. `make lint` runs them.

Codespell looks for misspelt words. These rules find what makes a sentence be read twice: a docstring that opens with
"What" or "Whether", chained references ("that of"), and lines of pages that nobody wrapped.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
LONGEST_LINE = 180
PAGES = ("*.md", "docs/*.md", "config/*.md")
CODE = ("workflow", "benchmarks")
_OPENINGS = "What|Whether|How|Which|Why|Where|When|Who|Whose|Everything|All that|Of each|Of every"
_HEADLESS = re.compile(rf"({_OPENINGS})\b(?![^.]*\?)")
_CHAIN = re.compile(r"\b(?:that|those) of\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*(])")
_FENCE = re.compile(r"^\s*(```|~~~)")
# Prose of a page begins none of these lines: tables, links, comments and settings of generated tables.
_NO_PROSE = re.compile(r"^\s*(\||<!--|!\[|\[|#|cells:|how:|\"|\*This version)")


@dataclass(frozen=True)
class Finding:
    """A place and the rule that it breaks."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text[:100]}"


def findings(root: Path = ROOT) -> list[Finding]:
    """Return everything that breaks a rule, in the order of files and lines."""
    found = [
        finding for path in _pages(root) for finding in of_page(path.read_text(encoding="utf-8"), _name(path, root))
    ]
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            found += of_code(path.read_text(encoding="utf-8"), _name(path, root))
    return found


def of_page(text: str, name: str) -> Iterator[Finding]:
    """Yield the findings of a Markdown page; code blocks and tables hold no prose."""
    fenced = False
    paragraph: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fenced ^= bool(_FENCE.match(line))
        prose = not fenced and line.strip() and not _FENCE.match(line) and not _NO_PROSE.match(line)
        if prose and len(line) > LONGEST_LINE:
            yield Finding(name, number, f"line of {len(line)} characters, at most {LONGEST_LINE}", line)
        if prose:
            paragraph.append(line.strip())
        elif paragraph:
            yield from _chains(" ".join(paragraph), name, number - len(paragraph))
            paragraph = []


def of_code(source: str, name: str) -> Iterator[Finding]:
    """Yield the findings of a module's docstrings and of its error texts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is None:
                continue
            line = node.body[0].lineno
            if _HEADLESS.match(text):
                yield Finding(name, line, "docstring opens with a clause that has no head", text)
            yield from _chains(" ".join(text.split()), name, line)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            texts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
            yield from _chains(" ".join(text for text in texts if isinstance(text, str)), name, node.lineno)


def main() -> None:
    """Print every finding; exit with 1 when there is one."""
    found = findings()
    print(*found, sep="\n") if found else print("prose: no findings")
    sys.exit(bool(found))


def _chains(text: str, name: str, line: int) -> Iterator[Finding]:
    for sentence in _SENTENCE.split(text):
        if len(_CHAIN.findall(sentence)) > 1:
            yield Finding(name, line, "two of 'that of' and 'those of' in one sentence", sentence)


def _pages(root: Path) -> Iterator[Path]:
    for pattern in PAGES:
        yield from sorted(root.glob(pattern))


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


if __name__ == "__main__":
    main()
