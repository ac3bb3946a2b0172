"""Modules of the library import each other in one direction: no circles, those for annotations included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "workflow"


def modules(root: Path) -> dict[str, Path]:
    """Return the library's modules by their dotted names."""
    found = {}
    for path in root.glob("atlas/**/*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the known modules that a file imports anywhere, also under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known.keys()


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imported(path, known) - {name} for name, path in known.items()}


def test_no_circle_in_the_library():
    found = graph(ROOT)
    assert "atlas.training.sae" in found["atlas.evaluation.evaluate"]
    TopologicalSorter(found).prepare()


def test_a_circle_is_found(tmp_path):
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas/one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from atlas.two import B\n"
    )
    (tmp_path / "atlas/two.py").write_text("def f():\n    import atlas.one\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_the_library_never_imports_snakemake():
    for path in modules(ROOT).values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "snakemake" for name in names), path
