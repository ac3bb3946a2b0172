"""GPUs of this machine, shared out among jobs: one lock file each, held as long as the job.

Snakemake only counts GPUs: two jobs of one GPU each would both compute on the first. A job that was granted n takes the
locks of n devices and shows torch these alone, hence before torch is imported. The system frees the lock of a process
that is killed.
"""

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.locks import NoLocksError, lock_if_free, release

log = logging.getLogger(__name__)

_RETRY_SECONDS, _LOG_SECONDS = 0.5, 60.0


def on_purpose_on_cpu() -> bool:
    """Return whether ATLAS_DEVICE=cpu is set: compute on the CPU although a GPU was granted. Raises AtlasError for
    others.
    """
    wanted = os.environ.get("ATLAS_DEVICE", "")
    if wanted not in ("", "cpu"):
        raise AtlasError(
            f"environment variable ATLAS_DEVICE is {wanted!r}; it may be 'cpu', or unset for what was granted"
        )
    return wanted == "cpu"


def visible_gpus(ask_driver: bool = True) -> list[str]:
    """Names of the devices that this process may use, as CUDA_VISIBLE_DEVICES lists them; [] when none is known.

    What the user or the scheduler made visible, else what the driver reports; without `ask_driver`, which takes a
    second, the device files alone. torch is not asked: it would fix the choice.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return [name for name in names if name not in ("", "-1", "NoDevFiles")]
    if ask_driver and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return done.stdout.split()
    devices = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*")]
    return sorted((match[1] for match in devices if match), key=int)


def gres_gpus(gres: str) -> int:
    """GPUs in a list of SLURM's generic resources: ``gpu``, ``gpu:2``, ``gpu:a100:2``; 0 if there are none."""
    entries = [entry.strip().split(":") for entry in gres.split(",")]
    counts = [entry[-1] if entry[-1].isdecimal() else "1" for entry in entries if entry[0] == "gpu"]
    return sum(map(int, counts))


def granted_gpus(resources: Mapping[str, Any]) -> int:
    """GPUs that a job was granted by its resources: `gpu`, or `gres` on clusters that know no other way."""
    return int(resources.get("gpu") or 0) or gres_gpus(str(resources.get("gres") or ""))


@contextmanager
def lease(gpus: int) -> Iterator[list[str]]:
    """Hold `gpus` devices that no other job of this user on this machine holds, waiting for them if need be.

    CUDA_VISIBLE_DEVICES names them, and only them, from here on. Yields their names; [] where no device is known,
    which `choose_device` then reports. Raises AtlasError when there are devices, but fewer than granted.
    """
    names = visible_gpus() if gpus else []
    if not names:
        yield []
        return
    if len(names) < gpus:
        raise AtlasError(
            f"this job was granted {gpus} GPUs, but only {len(names)} can be seen ({', '.join(names)}); call snakemake "
            f"with '--resources gpu={len(names)}', or look at CUDA_VISIBLE_DEVICES"
        )
    held = _take(names, gpus)
    try:
        chosen = list(held)
        # The order of the driver's own list; CUDA's default order is by speed.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        log.info("GPU %s of %s leased", ",".join(chosen), ",".join(names))
        yield chosen
    finally:
        _give_back(held)


def _take(names: list[str], gpus: int) -> dict[str, tuple[Path, int]]:
    """Locked files of `gpus` devices. All or none: a job that keeps one and waits could wait forever."""
    folder = _lock_folder()
    said = None
    while True:
        held: dict[str, tuple[Path, int]] = {}
        for name in names:
            path = folder / _file_name(name)
            if len(held) < gpus and (descriptor := _try_lock(path)) is not None:
                held[name] = path, descriptor
        if len(held) == gpus:
            return held
        _give_back(held)
        if said is None or time.monotonic() - said > _LOG_SECONDS:
            said = time.monotonic()
            log.info("waiting for %d of the GPUs %s: other jobs hold them (locks in %s)", gpus, ",".join(names), folder)
        time.sleep(_RETRY_SECONDS)


def _try_lock(path: Path) -> int | None:
    try:
        return lock_if_free(path, mode=0o600)
    except BlockingIOError:
        return None
    except NoLocksError as error:
        raise AtlasError(
            f"{path}: the file system of {path.parent} has no file locks ({error.strerror}), and without them two jobs "
            "would compute on one GPU; set ATLAS_GPU_LOCKS to a folder on a local disk"
        ) from error


def _give_back(held: Mapping[str, tuple[Path, int]]) -> None:
    for path, descriptor in held.values():
        release(path, descriptor)  # a cluster's node would collect a file for each allocation


def _lock_folder() -> Path:
    """A folder on this machine that only this user can write, the same for all jobs.

    Not in TMPDIR, which Grid Engine and others set anew for each job.
    """
    folder = Path(os.environ.get("ATLAS_GPU_LOCKS", "/tmp")) / f"sae-atlas-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or folder.is_symlink():
        raise AtlasError(
            f"{folder}, which holds the locks of GPUs, must be a folder that only you can write; delete it"
        )
    return folder


def _file_name(device: str) -> str:
    """Under SLURM with the number of the allocation: device 0 of one job may be another than device 0 of the next."""
    scope = f"slurm-{os.environ['SLURM_JOB_ID']}-" if "SLURM_JOB_ID" in os.environ else ""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{scope}{device}.lock")
