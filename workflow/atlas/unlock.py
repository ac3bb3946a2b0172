"""Take away the lock that a killed call left in this folder: ``python -m atlas.unlock SNAKEMAKE``.

It is taken away only when the process that made it is surely dead: it ran on this machine and in this folder, and the
system has freed its lock of the results. In any other case the lock stays, and a line says what is not known.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from atlas.job_lock import RESULTS_LOCK
from atlas.locks import lock_if_free, read_holder

LOCKS = Path(".snakemake/locks")
_BY_HAND = "look whether a call still works here; if none does, run: snakemake --unlock"


def reason_to_keep(results: Path) -> str | None:
    """Return why the lock of this folder must stay; None when the process that made it is dead."""
    path = results / RESULTS_LOCK
    holder = read_holder(path)
    if not holder:
        return f"{path} does not name the call that locked this folder; {_BY_HAND}"
    try:
        descriptor = lock_if_free(path)
    except BlockingIOError:
        return f"{holder} still works on {results.resolve()}; wait for it to end, or end it"
    except OSError as error:
        return f"{path} cannot be locked ({error.strerror}), so nothing is known of {holder}; {_BY_HAND}"
    os.close(descriptor)
    if f" on {socket.gethostname()}" not in holder or not holder.endswith(f" in {Path.cwd()}"):
        return f"{holder} locked the results, but this is {Path.cwd()} on {socket.gethostname()}; {_BY_HAND}"
    return None


def main(snakemake: list[str]) -> int:
    """Unlock this folder if it is locked and may be; the status is that of snakemake."""
    if not any(LOCKS.glob("*.lock")):
        return 0
    if reason := reason_to_keep(Path("results")):
        print(f"this folder is locked: {reason}", file=sys.stderr)
        return 0  # the call that follows says the rest
    print("unlocking this folder: the call that locked it was killed", file=sys.stderr)
    return subprocess.run([*snakemake, "--unlock", "--quiet", "all"]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
