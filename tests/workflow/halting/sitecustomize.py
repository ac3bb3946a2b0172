"""Loaded by every Python that has this folder in PYTHONPATH: it stands still (SIGSTOP) before it renames a file.

HALT_BEFORE is a pattern of the new path, HALT_TIMES how many such renames it takes. The folder HALTED then has a file
named after the process, with its script and the new path. With HALT_ONCE the first process does so and no other.
"""

import fnmatch
import os
import signal
import sys
from pathlib import Path

renamed = 0


def halt(event: str, arguments: tuple) -> None:
    """An audit hook; os.rename and os.replace tell it their paths before they act."""
    global renamed
    if event != "os.rename" or not fnmatch.fnmatch(os.fspath(arguments[1]), os.environ["HALT_BEFORE"]):
        return
    renamed += 1
    if renamed != int(os.environ["HALT_TIMES"]):
        return
    folder = Path(os.environ["HALTED"])
    if "HALT_ONCE" in os.environ:
        try:
            (folder / "once").mkdir()
        except FileExistsError:
            return
    (folder / str(os.getpid())).write_text(f"{sys.argv[0]}\n{os.fspath(arguments[1])}")
    os.kill(os.getpid(), signal.SIGSTOP)


sys.addaudithook(halt)
