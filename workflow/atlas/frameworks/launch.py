"""Run a framework on a job, in a process and an environment of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from atlas.config.frameworks import OURS
from atlas.errors import AtlasError
from atlas.files import read_plain_json
from atlas.processes import peer_environment

WEIGHTS_FILE, RESULT_FILE = "weights.safetensors", "result.json"
_WORKFLOW = Path(__file__).parents[2]
_SHOWN = 4000  # characters of the end of a failed run's output


class FrameworkError(AtlasError):
    """A framework that could not be run, or whose result is not what was asked for."""


def train_with(framework: str, job: Path, folder: Path, environments: Path | None = None) -> dict[str, Any]:
    """Train a job with a framework; `folder` receives its weights and result, which is returned.

    Peers run in isolated mode with the Python of `environments`/<framework>/bin, ours in the Python that runs this.
    Raises FrameworkError with the end of its output when the process fails.
    """
    arguments = [str(Path(job).absolute()), str(Path(folder).absolute())]
    if framework == OURS:
        command = [sys.executable, "-m", "atlas.frameworks.ours", *arguments]
        own = {"PYTHONPATH": str(_WORKFLOW)}
    else:
        command = [str(python_of(framework, environments)), "-I", str(runner_of(framework)), *arguments]
        own = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        command,
        env=peer_environment(**own),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise FrameworkError(f"{framework} failed on {job} (status {done.returncode}):\n{_end(done.stdout)}")
    return read_plain_json(Path(folder) / RESULT_FILE)


def _end(output: str) -> str:
    """The last error of an output from its traceback on, or its end."""
    start = output.rfind("Traceback (most recent call last)")
    return output[-_SHOWN:] if start < 0 else output[start : start + _SHOWN]


def python_of(framework: str, environments: Path | None) -> Path:
    """The Python of a peer's environment; raises FrameworkError when there is none."""
    python = Path(environments or "") / framework / "bin" / "python"
    if environments is None or not python.exists():
        raise FrameworkError(
            f"{framework} has no environment at {python}; "
            f"build it with `snakemake --cores 1 results/environments/{framework}/ready`"
        )
    return python.absolute()


def runner_of(framework: str) -> Path:
    """The script that trains with a peer."""
    return _WORKFLOW / "peers" / f"train_{framework}.py"
