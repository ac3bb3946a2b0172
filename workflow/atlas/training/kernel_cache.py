"""Keep compiled kernels and measured choices: files of this machine, which are never handed on.

They lie in `.snakemake/atlas-kernels` of the project, or in the user's cache outside of one. They are no part of
`results`, which people copy from each other, for compiled code from there is run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas.locks import wait_for_lock

# The process that compiles needs about 10 s of a core; on a machine that is busy with many jobs it takes longer.
PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.1


def cache_root() -> Path:
    """The folder, which ATLAS_KERNELS can name."""
    if given := os.environ.get("ATLAS_KERNELS"):
        return Path(given)
    project = Path(".snakemake")
    if project.is_dir():
        return project.resolve() / "atlas-kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sae-atlas" / "kernels"


@contextmanager
def locked_folder(name: str) -> Iterator[Path]:
    """A folder below `cache_root`, made for this user alone and locked: one process works in it, others wait.

    Raises OSError when it cannot be written or locked, when others could have put code there, or when it is locked
    for longer than PATIENCE_SECONDS. The caller then does without it, and says so.
    """
    folder = cache_root() / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user, or others may write to it: their code is not run")
    descriptor = wait_for_lock(folder / "lock", _PAUSE_SECONDS, PATIENCE_SECONDS)
    try:
        yield folder
    finally:
        os.close(descriptor)
