"""Isolated Python environments, one per peer tool.

Peers need versions of libraries that this project does not have, and must not see its code. Each gets a virtual
environment of its own from a file that pins everything in it, and its programs run in isolated mode, where neither
PYTHONPATH nor the folder of the script is on the import path.
"""

import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

from atlas.errors import ExportError
from atlas.files import read_json, sha256_file, write_json
from atlas.folder import Folder

log = logging.getLogger(__name__)

# Peer -> the module that must import.
PEERS = {
    "saelens": "sae_lens",
    "dictionary_learning": "dictionary_learning",
    "sparsify": "sparsify",
    "delphi": "delphi.latents",
    "sae_bench": "sae_bench.evals.sparse_probing_sae_probes.main",
    "llama_cpp": "xllamacpp",
}
READY = "ready"
_SHOWN = 4000  # characters of the end of a failed command's output


def build_environment(peer: str, requirements: Path, folder: Folder) -> Path:
    """Make the virtual environment of a peer in `folder` and return its Python.

    An environment that was finished from the same pins is taken as it is; anything else in `folder` is replaced, but
    only if it is an environment. Raises ExportError when the packages cannot be installed or imported.
    """
    if peer not in PEERS:
        raise ExportError(f"peer is {peer!r}; expected one of {', '.join(PEERS)}")
    requirements, folder = Path(requirements), Path(folder)
    if not requirements.is_file():
        raise ExportError(f"{requirements}: missing; it must pin what the environment of {peer} holds")
    # Not resolved: the link to the interpreter is what makes it the environment's.
    python = folder.absolute() / "bin" / "python"
    pins = sha256_file(requirements)
    if is_ready(folder, pins):
        return python
    _clear(folder)
    started = time.monotonic()
    _run([sys.executable, "-m", "venv", str(folder)], f"making an environment for {peer}")
    # Without compiling: of the modules installed, the few that are imported get compiled then.
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    # torch first and alone: its builds for GPUs bring libraries that the file does not name. Of the rest, the file is
    # the whole: dictionary_learning declares much that it does not import.
    torch = [line for line in requirements.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    if torch:
        _run([*pip, "--constraint", str(requirements), *torch], f"installing {torch} of {requirements}")
    _run([*pip, "--no-deps", "--requirement", str(requirements)], f"installing {requirements}")
    run_isolated(python, ["-c", f"import {PEERS[peer]}"], f"importing {PEERS[peer]}")
    seconds = round(time.monotonic() - started, 1)
    size = round(sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)
    log.info("%s: %s MB installed in %s s", folder, size, seconds)
    write_json(folder / READY, {"peer": peer, "requirements_sha256": pins, "seconds": seconds, "megabytes": size})
    return python


def is_ready(folder: Path, pins: str) -> bool:
    """Return whether a finished environment is in `folder`, made from requirements of this hash."""
    try:
        return read_json(Path(folder) / READY)["requirements_sha256"] == pins
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_isolated(python: Path, arguments: list[str], what: str) -> str:
    """Run a peer's Python in isolated mode and return what it printed; raises ExportError with its last output."""
    return _run([str(python), "-I", *arguments], what)


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        raise ExportError(f"{what} failed: {command[0]} cannot be run ({error})") from error
    if done.returncode != 0:
        raise ExportError(f"{what} failed with status {done.returncode}; its output ends:\n{done.stdout[-_SHOWN:]}")
    return done.stdout


def _clear(folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "pyvenv.cfg").is_file():
        raise ExportError(f"{folder}: holds files but no virtual environment; name another folder, or remove it")
    shutil.rmtree(folder)
