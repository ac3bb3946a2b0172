"""docs/security.md: each line has a test that exists, and the library has no way to run what it downloads."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(
    path for room in ("atlas", "scripts", "peers") for path in (REPOSITORY / "workflow" / room).rglob("*.py")
)
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (REPOSITORY / "docs/security.md").read_text(encoding="utf-8"))
LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_threat_has_its_test(file, test):
    assert f"def {test}(" in (REPOSITORY / file).read_text(encoding="utf-8")


def test_every_line_of_the_table_names_one():
    table = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8").split("|---|---|---|\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) == len(NAMED) >= 10


def test_library_runs_no_foreign_code():
    found = [
        f"{path.relative_to(REPOSITORY)}: {fault}" for path in SOURCES for fault in faults(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "eval('1')",
        "exec('x = 1')",
        "import yaml\nyaml.load('x')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
)
def test_the_search_finds_what_is_planted(planted):
    assert faults(planted)


def faults(source: str) -> list[str]:
    """Ways to run data as code in a Python source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else {node.module}
            )
            found += [f"line {node.lineno}: imports {name}" for name in names & LOADERS]
        elif isinstance(node, ast.Call):
            found += [f"line {node.lineno}: {fault}" for fault in faults_of_call(node)]
    return found


def faults_of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    found = [f"{key}=True" for key in ("shell", "trust_remote_code", "allow_pickle") if given.get(key) == "True"]
    if name in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load"):
        found.append(name)
    if name == "torch.load" and given.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    return found
