"""One process per training: two that write the same checkpoint could each rename the other's half-written file."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas.errors import TrainingError
from atlas.locks import NoLocksError, wait_for_lock

log = logging.getLogger(__name__)

LOCK_FILE = "lock"
# A retry may start while the process before it still writes its last checkpoint.
PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.2


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the lock of a state folder; it ends with the process, however that ends.

    Raises TrainingError when another process keeps it for longer than PATIENCE_SECONDS. A file system without locks is
    reported in the log.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(folder: Path) -> int | None:
    def waiting() -> None:
        log.info("%s: waiting for another process that trains this SAE", folder)

    try:
        return wait_for_lock(folder / LOCK_FILE, _PAUSE_SECONDS, PATIENCE_SECONDS, waiting)
    except BlockingIOError:
        raise TrainingError(
            f"{folder}: another process trains this SAE, and did not end within {PATIENCE_SECONDS:.0f} s; wait for it "
            "(under SLURM: squeue), or end it"
        ) from None
    except NoLocksError as error:
        log.warning("%s: cannot be locked (%s); make sure that no other process trains this SAE", folder, error)
        return None
