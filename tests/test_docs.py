"""What the pages say exists: links, files, targets of commands, and the errors that the FAQ quotes."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


@cache
def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them: lower case, spaces as hyphens, other marks dropped."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower().strip()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """Lines of the page's shell blocks, continued lines joined, comments and here-documents dropped."""
    blocks = "\n".join(FENCE.findall(page.read_text())).replace("\\\n", " ")
    blocks = re.sub(r"<<'EOF'.*?^EOF$", "", blocks, flags=re.DOTALL | re.MULTILINE)
    return [line.split(" #")[0].strip() for line in blocks.splitlines() if line.strip() and not line.startswith("#")]


def test_scripts_that_commands_name_exist():
    named = {
        word for page in PAGES for line in commands(page) for word in line.split() if word.startswith("benchmarks/")
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def targets() -> list[str]:
    """Targets of the embedded configuration that commands of the pages name, without placeholders."""
    found = set()
    for page in PAGES:
        for line in commands(page):
            words = line.replace("…", "").split()
            own = any(word.startswith(("--configfile", "--config")) for word in words)
            if words[:1] != ["snakemake"] or own or "--report" in words or "--batch" in words:
                continue
            found |= {word for word in words if word.startswith("results/") and not re.search(r"[<>*{}]|my[-_]", word)}
    return sorted(found)


@pytest.mark.slow
def test_targets_that_commands_name_can_be_planned():
    named = targets()
    assert len(named) > 10
    call = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--quiet", "all", "--nolock", "--", *named]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def texts_of_the_code() -> str:
    """Every string of the library and the rules, `…` for what is filled in."""
    found = []
    for path in (ROOT / "workflow/atlas").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def quoted_errors() -> list[str]:
    lines = re.findall(r"^### (.+)$", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    return [text for line in lines if "Snakemake's" not in line for text in re.findall(r"`([^`]+)`", line)]


@pytest.mark.parametrize("text", quoted_errors())
def test_errors_of_the_faq_are_errors_of_the_code(text):
    assert text in texts_of_the_code()
