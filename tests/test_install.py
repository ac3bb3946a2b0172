"""The library as a package: what is installed is whole, and leaves the torch of an environment alone."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from atlas.code_hash import Code

REPOSITORY = Path(__file__).parents[1]
LIBRARY = REPOSITORY / "workflow"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
# Modules that are imported under another name than they are installed by, and one for GPUs that torch brings.
NAMES = {"yaml": "pyyaml"}
BROUGHT = {"triton", "atlas"}


def test_every_requirement_is_met_by_what_is_here():
    """A lower bound, so that no other torch is installed; a pin would replace that of an environment."""
    for requirement in NEEDED:
        assert requirement.specifier.contains(version(requirement.name)), requirement
        assert {each.operator for each in requirement.specifier} == {">="}, requirement


def test_every_module_that_python_offers_needs_is_required():
    imported = set()
    for name in Code(LIBRARY).reached("atlas/__init__.py", "atlas/api.py"):
        for node in ast.walk(ast.parse((LIBRARY / name).read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    outside = {name for name in imported if name not in sys.stdlib_module_names} - BROUGHT
    assert {NAMES.get(name, name) for name in outside} == {each.name.lower() for each in NEEDED}


@pytest.mark.slow
def test_the_installed_package_is_whole(tmp_path):
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(LIBRARY, source / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=300)
    files = {path.relative_to(LIBRARY) for path in (LIBRARY / "atlas").rglob("*") if path.is_file()}
    missing = {path for path in files if "__pycache__" not in path.parts and not (target / path).is_file()}
    assert not missing
    code = "import atlas; print(atlas.open_sae.__module__, atlas.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == ["atlas.api", str(target / "atlas/__init__.py")]
