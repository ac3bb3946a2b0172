"""One process at a time makes an output, and one call at a time works on a folder of results.

Snakemake's own lock covers one call. A call that is killed leaves its cluster jobs running; after `--unlock` the next
call submits them again, and both would write the same temporary files.
"""

import atexit
import errno
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from atlas.errors import AtlasError
from atlas.locks import NoLocksError, lock_if_free, read_holder, release, wait_for_lock, write_holder

log = logging.getLogger(__name__)

# In the folder of results, which every checkout that shares it sees.
RESULTS_LOCK = ".lock"

_RETRY_SECONDS = 1.0


@contextmanager
def only_one(job: str, folder: Path = Path(".snakemake/atlas-jobs")) -> Iterator[None]:
    """Hold the lock of a job, waiting for a process that has it; `job` is a text that no other job has.

    It waits rather than fails: a failed job has its outputs deleted by Snakemake, those of the other process too. The
    lock ends with the process, whatever ends it. On a file system without locks (some clusters switch them off) jobs
    run unlocked, and their log says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(job.encode()).hexdigest()[:32]}.lock"
    descriptor = _acquire(path, job)
    try:
        yield
    finally:
        if descriptor is not None:
            release(path, descriptor)


def claim_results(folder: Path) -> None:
    """Hold the lock of a results folder as long as this process lives.

    Snakemake's own lock is in the checkout: two checkouts can share results by a link, and each would delete what the
    other makes. Raises AtlasError that names the call that works there. A file system without locks is named in the
    log.
    """
    path = folder / RESULTS_LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = lock_if_free(path)
    except BlockingIOError:
        holder = read_holder(path) or "another call"
        raise AtlasError(
            f"{folder.resolve()}: {holder} works on these results now; two calls would delete each other's files: wait "
            "for it to end, or give this checkout a results folder of its own"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):  # who cannot write here makes nothing: the first job says so
            log.warning(
                "%s: cannot be locked (%s); a second call on these results would not be noticed",
                folder.resolve(),
                error.strerror,
            )
        return
    with suppress(OSError):  # a full disk: the text only names the holder
        write_holder(descriptor, f"{_whoami()} in {Path.cwd()}\n")
    atexit.register(_release, path, descriptor, os.getpid())


def _release(path: Path, descriptor: int, holder: int) -> None:
    if os.getpid() == holder:  # not in a process that was forked from it
        release(path, descriptor)


def _acquire(path: Path, job: str) -> int | None:
    def waiting() -> None:
        holder = read_holder(path) or "another process"
        log.warning("%s makes %s already; waiting for it to end. Two calls work on one results folder", holder, job)

    try:
        descriptor = wait_for_lock(path, _RETRY_SECONDS, waiting=waiting)
    except NoLocksError as error:
        log.warning("%s: no locks on this file system (%s); two calls at once would not be noticed", path.parent, error)
        return None
    write_holder(descriptor, _whoami())
    return descriptor


def _whoami() -> str:
    slurm = os.environ.get("SLURM_JOB_ID")
    who = f"process {os.getpid()} on {socket.gethostname()}"
    return f"{who} (end it with: scancel {slurm})" if slurm else who
