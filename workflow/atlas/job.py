"""Frame of every job's work: log, threads, device, and errors that people can read."""

import errno
import gc
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas.errors import AtlasError
from atlas.gpu_lease import lease, on_purpose_on_cpu
from atlas.job_lock import only_one
from atlas.progress import name_job
from atlas.redaction import RedactingFormatter

# What no program can mend: the message says what the user can.
_NO_SPACE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the quota is used up; free some space and run the same command again",
}
_REFUSED = {
    errno.EROFS: "this file system is mounted read-only; mount it for writing, or work in another folder",
    errno.EACCES: "this may not be read or written; mend its permissions, or work in a folder of your own",
}


@contextmanager
def job(log_file: str | Path, threads: int = 1, gpus: int | None = None) -> Iterator["object | None"]:
    """Run a job's body; yields the torch device when `gpus` is given, else None.

    `gpus` is what Snakemake granted, which may be less than the rule asks for: 0 is the CPU, on purpose. Messages go
    to `log_file` and to stderr. An AtlasError is printed as its message alone and ends the process with status 1; any
    other exception is a bug and keeps its traceback.
    """
    # Imports make a million objects, which Python by default searches for garbage again and again meanwhile: about a
    # tenth of a short job's time. Garbage of the job's own is still collected.
    gc.set_threshold(100_000, 20, 100)
    try:
        to_file = _log_to(Path(log_file))
        name_job(Path(log_file))
        # A log belongs to one job.
        with only_one(str(log_file)):
            assert to_file.stream is not None  # opened when the handler was made
            to_file.stream.truncate(0)  # of an earlier run, which may have been going on until now
            with lease(granted := _on_cpu_if_asked(gpus or 0)):
                yield None if gpus is None else prepare_torch(threads, granted)
    except AtlasError as error:
        logging.getLogger("atlas").error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    except Exception as error:
        remedy = _remedy(error)
        if remedy is None:
            logging.getLogger("atlas").exception("unexpected error")  # once, and redacted; Python would show it again
            sys.exit(1)
        logging.getLogger("atlas").error("%s: %s", error, remedy)
        sys.exit(1)


def _remedy(error: Exception) -> str | None:
    """Return what to do about an error of the system; None for any other, which is a bug."""
    if isinstance(error, OSError) and error.errno is not None:
        remedies = _NO_SPACE | (_REFUSED if error.filename else {})
        return remedies.get(error.errno)
    # HDF5 and safetensors give the system's number in their text alone.
    found = re.search(r"\b(?:os error |errno = )(\d+)", str(error))
    return _NO_SPACE.get(int(found[1])) if found else None


def _log_to(log_file: Path) -> logging.FileHandler:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    to_file, to_terminal = logging.FileHandler(log_file, mode="a", encoding="utf-8"), logging.StreamHandler()
    to_file.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal.setFormatter(RedactingFormatter("%(message)s"))
    if sys.stderr.isatty():
        to_terminal.addFilter(lambda record: record.name != "atlas.progress")  # the bar is there
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_terminal], force=True)
    for noisy in ("httpx", "httpcore", "urllib3", "filelock", "fsspec", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return to_file


def _on_cpu_if_asked(gpus: int) -> int:
    if gpus and on_purpose_on_cpu():
        logging.getLogger("atlas").warning(
            "ATLAS_DEVICE=cpu: the CPU is used, and the %d GPU(s) granted lie idle", gpus
        )
        return 0
    return gpus


def prepare_torch(threads: int, gpus: int):
    """Give torch `threads` threads and the same results on each run; return the torch.device for so many GPUs."""
    # Imported here, after the thread count is in the environment: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from atlas.devices import choose_device, keep_freed_memory, make_deterministic, use_threads

    use_threads(threads)
    make_deterministic()
    keep_freed_memory()
    return choose_device(gpus)


def export_library_path() -> None:
    """Let processes started from here import this library, whether it is installed or not."""
    library = str(Path(__file__).parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", library)]
    os.environ["PYTHONPATH"] = os.pathsep.join([library, *paths])
