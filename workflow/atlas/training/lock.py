"""One process per training: two that write the same checkpoint could each rename the other's half-written file."""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas.errors import TrainingError

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
    with (folder / LOCK_FILE).open("w") as file:
        _acquire(file, folder)
        yield


def _acquire(file, folder: Path) -> None:
    deadline, said = time.monotonic() + PATIENCE_SECONDS, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{folder}: another process trains this SAE, and did not end within {PATIENCE_SECONDS:.0f} s; wait "
                    "for it (under SLURM: squeue), or end it"
                ) from None
        except OSError as error:
            log.warning("%s: cannot be locked (%s); make sure that no other process trains this SAE", folder, error)
            return
        if not said:
            log.info("%s: waiting for another process that trains this SAE", folder)
            said = True
        time.sleep(_PAUSE_SECONDS)
