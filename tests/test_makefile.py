"""The Makefile finds a Python that is new enough, and refuses what cannot work before anything is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OLD, GONE = "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 127\n"


@pytest.fixture
def checkout(tmp_path) -> Path:
    return fresh(tmp_path / "checkout")


def fresh(folder: Path) -> Path:
    (folder / "envs").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", folder)
    (folder / "envs/requirements.txt").touch()
    return folder


def make(folder: Path, *arguments: str, **pythons: str) -> subprocess.CompletedProcess:
    """Call make where these are what is found under the names of Pythons; all others are missing."""
    found = folder / "found"
    found.mkdir()
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        (found / name).write_text(pythons.get(name.replace(".", "_"), GONE))
        (found / name).chmod(0o755)
    path = f"{found}{os.pathsep}{os.environ['PATH']}"
    call = ["make", "--directory", str(folder), *arguments]
    return subprocess.run(call, env=os.environ | {"PATH": path}, capture_output=True, text=True)


def test_an_old_python3_is_passed_over(checkout):
    good = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    done = make(checkout, "--dry-run", ".venv/ready", python3=OLD, python3_12=good)
    assert "python3.12 -m venv .venv" in done.stdout


def test_without_a_new_python_nothing_is_made(checkout):
    done = make(checkout, ".venv/ready", python3=OLD)
    assert done.returncode
    assert "Python 3.11 or newer is needed; tried: python3 python3.13 python3.12 python3.11" in done.stdout
    assert not (checkout / ".venv").exists()


def test_gpus_are_counted_by_the_python_of_the_environment(checkout):
    """The system's may be too old for this library."""
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\necho 3\n")
    (checkout / ".venv/bin/python").chmod(0o755)
    assert "--resources gpu=3 " in make(checkout, "--dry-run", "sweep", python3=OLD).stdout


def test_a_path_with_a_space_is_refused_at_once(tmp_path):
    done = make(fresh(tmp_path / "my checkout"), "sweep")
    assert done.returncode
    assert "my checkout: this path has a space" in done.stderr


def test_the_report_is_of_what_the_sweep_and_its_trainings_make(checkout):
    text = make(checkout, "--dry-run", "report").stdout
    made, reported = (line.split(" -- ")[1] for line in text.splitlines() if "llama_sweep_runs.csv" in line)
    assert made == reported
    assert "--report results/report.zip -- " in text
