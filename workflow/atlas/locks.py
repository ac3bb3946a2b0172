"""Locks on files, for one process at a time; the system frees them with the process, whatever ends it.

One implementation for jobs, results, trainings, caches, revisions and GPUs. The library `filelock` does not fit: it
says nothing while it waits, has no place for the holder's name, and leaves a file behind for each lock.
"""

import fcntl
import math
import os
import time
from collections.abc import Callable
from pathlib import Path


class NoLocksError(OSError):
    """The file system of a file has no locks: some clusters switch them off."""


def lock_if_free(path: Path, mode: int = 0o666) -> int:
    """Lock a file, made where it is missing, and return its descriptor; what is in it stays.

    Raises BlockingIOError when another process has it, NoLocksError where the file system has no locks, and other
    OSErrors when the file cannot be opened. A link in place of the file is not followed.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise
            raise NoLocksError(error.errno, error.strerror, str(path)) from error
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed it between our opening and locking it


def wait_for_lock(
    path: Path, pause: float, patience: float = math.inf, waiting: Callable[[], None] = lambda: None
) -> int:
    """Lock a file as `lock_if_free`, trying again every `pause` seconds; `waiting` is called once if it must wait.

    Raises BlockingIOError when another process has it for longer than `patience` seconds.
    """
    began, waits = time.monotonic(), False
    while True:
        try:
            return lock_if_free(path)
        except BlockingIOError:
            if time.monotonic() - began > patience:
                raise
        if not waits:
            waits = True
            waiting()
        time.sleep(pause)


def write_holder(descriptor: int, text: str) -> None:
    """Write into a locked file who holds it, in place of what is there."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def read_holder(path: Path) -> str:
    """Return what the holder of a lock, or who was killed with it, wrote of itself; empty when nothing is known."""
    try:
        return path.read_bytes()[:1000].decode(errors="replace").strip()
    except OSError:
        return ""


def release(path: Path, descriptor: int) -> None:
    """Free a lock and remove its file. To keep the file, close the descriptor."""
    path.unlink(missing_ok=True)  # before it is free: another process could have it then
    os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Return whether an opened file is the one that its path names now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
