"""Which edits of code run which rules again: their hashes cover what their scripts reach, and nothing else."""

import modulefinder
import re
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
from project import REPOSITORY

from atlas.code_hash import Code

WORKFLOW = REPOSITORY / "workflow"
RULES = {path.name: path.read_text() for path in sorted((WORKFLOW / "rules").glob("*.smk"))}
# From which the rules of tables and figures are made.
MEASURES = "".join(path.read_text() for path in sorted((WORKFLOW / "atlas").glob("*/study.py")))


def scripts() -> list[str]:
    return sorted(
        f"scripts/{name}.py" for name in set(re.findall(r'"\.\./scripts/(\w+)\.py"', "".join(RULES.values())))
    )


def modules() -> list[str]:
    """Modules of the functions that rules name."""
    text = "".join(RULES.values()) + MEASURES
    return sorted({name.rpartition(".")[0] for name in re.findall(r'"(atlas(?:\.\w+){2,})"', text)})


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The workflow's code without what type checkers alone import."""
    folder = shutil.copytree(WORKFLOW, tmp_path_factory.mktemp("executed") / "workflow")
    for path in folder.rglob("*.py"):
        path.write_text(path.read_text().replace("if TYPE_CHECKING:", "if False:"))
    return folder


class Finder(modulefinder.ModuleFinder):
    """Python's own search for imports, in byte code; each module is compiled once for all scripts."""

    compiled: ClassVar = {}

    def load_module(self, fqname, fp, pathname, file_info):
        if pathname not in self.compiled and file_info[2] == modulefinder._PY_SOURCE:
            self.compiled[pathname] = compile(fp.read(), pathname, "exec")
        if file_info[2] != modulefinder._PY_SOURCE:
            return super().load_module(fqname, fp, pathname, file_info)
        module = self.add_module(fqname)
        module.__file__ = pathname
        self.scan_code(self.compiled[pathname], module)
        return module


@pytest.mark.parametrize("entry", [*scripts(), *modules()])
def test_hash_of_a_rule_covers_every_module_that_its_code_reaches(executed, entry):
    """As Python's modulefinder finds them: it compiles, and reads the byte code."""
    finder = Finder(path=[str(executed), str(executed / "scripts")])
    if is_script := entry.startswith("scripts/"):
        finder.run_script(str(executed / entry))
    else:
        finder.import_hook(entry)
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    found = {file.relative_to(executed).as_posix() for file in files}
    # Not imported, but started by a job: their names are strings.
    named = {name for file in files for name in re.findall(r'"(\w+\.py)"', file.read_text())}
    started = {f"peers/{name}" for name in named if (executed / "peers" / name).exists()}
    code = Code(WORKFLOW)
    reached = code.reached(*([entry] if is_script else code.files_of(entry)))
    assert {name for name in reached if name.endswith(".py")} == found | started


def test_every_script_and_every_file_of_the_library_belongs_to_a_rule():
    code = Code(WORKFLOW)
    assert scripts() == sorted(f"scripts/{path.name}" for path in (WORKFLOW / "scripts").glob("*.py"))
    runners = [f"peers/{path.name}" for path in (WORKFLOW / "peers").glob("train_*.py")]
    files_of_modules = [f"{name.replace('.', '/')}.py" for name in modules()]
    reached = set(code.reached(*scripts(), *files_of_modules, *runners, "atlas/frameworks/ours.py"))
    files = [path for path in (WORKFLOW / "atlas").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {path.relative_to(WORKFLOW).as_posix() for path in files} <= reached
    # Of use beside the workflow alone: read by rules, by tests or by a person.
    peers = {f"peers/{path.name}" for path in (WORKFLOW / "peers").glob("*.py")}
    assert peers - reached == {"peers/delphi_cache.py", "peers/llama_server.py"}


def test_the_code_of_the_configuration_is_reached_section_by_section():
    """A job that uses one section is not run again for an edit of another, nor for one of how files are read."""
    reached = Code(WORKFLOW).reached("scripts/harvest.py")
    assert [name for name in reached if "/config/" in name] == [
        f"atlas/config/{name}.py" for name in ("__init__", "base", "corpora", "data", "planted", "sources")
    ]
