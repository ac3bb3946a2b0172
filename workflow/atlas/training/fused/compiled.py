"""Compiles the loops once for a project and machine, and runs them on the threads that torch was given.

A lock lets one process compile while others wait; checksums are verified before anything that was compiled is loaded.
"""

import hashlib
import itertools
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import torch
from numba.core import types

from atlas.errors import DamagedFileError
from atlas.files import read_json, sha256_file, write_json
from atlas.training.fused import lanes, loops
from atlas.training.kernel_cache import cache_root, locked_folder

log = logging.getLogger(__name__)

_MANIFEST = "checksums.json"
_INTEGERS = {"float32": types.int32, "float64": types.int64}
# Parts per thread: who is done with its own takes the next one.
_PARTS = 4

Kernels = dict[str, Callable[..., Any]]


@cache
def kernels(dtype: torch.dtype) -> Kernels:
    """The loops by name, compiled for weights of float32 or float64."""
    name = str(dtype).removeprefix("torch.")
    if name not in _INTEGERS:
        raise ValueError(f"fused kernels are for float32 and float64 weights, not {name}")
    try:
        with locked_folder(f"{_fingerprint()}-{name}") as folder:
            return _load(folder, name)
    except OSError as error:
        log.warning("%s: %s; kernels are compiled for this process alone", cache_root(), error)
    with tempfile.TemporaryDirectory(prefix="atlas-kernels-") as folder:
        return _load(Path(folder), name)


def run(kernel: Callable[..., object], n: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over parts of range(n), on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), n)
    if threads <= 1:
        kernel(0, n, *arguments)
        return
    parts = min(n, _PARTS * threads)
    left = itertools.count()

    def work() -> None:
        while (part := next(left)) < parts:
            kernel(n * part // parts, n * (part + 1) // parts, *arguments)

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="atlas-kernels")


def _fingerprint() -> str:
    """Return what decides the compiled code: its source, the compiler and the processor."""
    target = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256()
    for file in (lanes.__file__, loops.__file__, __file__):
        digest.update(Path(file).read_bytes())
    parts = (platform.python_version(), numba.__version__, llvmlite.__version__, platform.machine(), target)
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:16]


def _load(folder: Path, name: str) -> Kernels:
    """Compiled loops from the folder, or compiled into it; the caller holds its lock."""
    code = folder / "code"
    if not _verified(folder):
        shutil.rmtree(code, ignore_errors=True)
        log.info("compiling kernels for this processor into %s", folder)
    found, compiled = _compile(code, name)
    if compiled:
        files = sorted(path for path in code.rglob("*") if path.is_file())
        write_json(folder / _MANIFEST, {str(path.relative_to(folder)): sha256_file(path) for path in files})
    return found


def _verified(folder: Path) -> bool:
    """Return whether the folder has compiled code that is as it was written; says so if not."""
    if not (folder / _MANIFEST).exists():
        return False
    try:
        written = read_json(folder / _MANIFEST)
        damaged = [path for path, digest in written.items() if sha256_file(folder / path) != digest]
    except (OSError, DamagedFileError) as error:
        damaged = [str(error)]
    if damaged:
        log.warning("%s: compiled kernels are damaged (%s); they are compiled anew", folder, damaged[0])
    return not damaged


def _compile(code: Path, name: str) -> tuple[Kernels, bool]:
    """The loops with the signatures of these weights, and whether any was not in the cache."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(code)
    try:
        found = {
            loop: numba.njit(cache=True, nogil=True, error_model="numpy")(getattr(loops, loop))
            for loop in _signatures(name)
        }
    finally:
        numba.config.CACHE_DIR = before
    for loop, signatures in _signatures(name).items():
        for signature in signatures:
            found[loop].compile(signature)
        found[loop].disable_compile()  # arguments of other types are an error, not another compilation
    return found, any(sum(loop.stats.cache_misses.values()) for loop in found.values())


def _signatures(name: str) -> dict[str, list[tuple]]:
    """Types of the arguments of each loop."""
    real, key = getattr(types, name), _INTEGERS[name]
    number, flag = types.int64, types.boolean
    vector, table, planes = real[::1], real[:, ::1], real[:, :, ::1]
    keys, integers, long_integers, integer_table = key[::1], types.int32[::1], types.int64[::1], types.int32[:, ::1]
    part = (number, number)
    products = [table] if name == "float64" else [table, types.int16[:, ::1]]
    entries = (long_integers, integers, integers, vector)
    return {
        "select_rows": [(*part, of, vector, keys, number, integers, vector, integers) for of in products],
        "reach_floor": [(*part, of, vector, keys, number, number, integer_table, table, integers) for of in products],
        "select_batch": [(integer_table, key[:, ::1], integers, keys, number, integers, vector)],
        "reconstruct": [(*part, *entries, table, vector, table, long_integers, real, planes, table, vector)],
        "sort_by_latent": [(*entries, vector, number, long_integers, integers, vector, vector, vector)],
        "sum_by_latent": [(*part, number, number, long_integers, integers, vector, table, real, table)],
        "centre": [(*part, table, vector, table, types.int16[:, ::1])],
        "column_sums": [(*part, table, integers, vector, vector)],
        "project": [(*part, table, table, vector)],
        "squared_norms": [(*part, table, vector)],
        "total": [(vector,)],
        "adam": [(*part, table, table, table, table, types.UniTuple(real, 8), flag)],
    }
