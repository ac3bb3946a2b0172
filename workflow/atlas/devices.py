"""Choice of device and number format, made once and aloud.

Nothing here falls back silently: a job that was given a GPU and finds none stops.
"""

import ctypes
import logging
import os
import sys

import torch

from atlas.errors import AtlasError

log = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# Names of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(gpus: int) -> torch.device:
    """The device for a job that was granted `gpus` GPUs by the scheduler.

    Raises AtlasError when a GPU was granted and torch sees none; with 0 the CPU is used and said so.
    """
    if gpus == 0:
        log.info("device: cpu (no GPU granted to this job)")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise AtlasError(
            f"this job was granted {gpus} GPU(s), but torch {torch.__version__} sees none; "
            "run with '--resources gpu=0' to use the CPU on purpose, or mend the CUDA installation"
        )
    log.info("device: cuda (%s)", torch.cuda.get_device_name(0))
    return torch.device("cuda")


def choose_two_devices(device: torch.device, gpus: int) -> tuple[torch.device, torch.device]:
    """The devices of a model and of SAEs beside it, for a job whose first device is `device` and that asked for `gpus`.

    They are one device on the CPU, or where one GPU was asked for. Raises AtlasError when two were, and one is seen.
    """
    if device.type != "cuda" or gpus < 2:
        return device, device
    if (seen := torch.cuda.device_count()) < 2:
        raise AtlasError(
            f"this job asks for {gpus} GPUs, one for the model and one for the SAEs, but torch sees {seen}; grant two "
            "(--resources gpu=2), or set harvest.sae_gpu to false"
        )
    log.info("device of the model: cuda:0; device of the SAEs: cuda:1")
    return torch.device("cuda", 0), torch.device("cuda", 1)


def fast_matmul_dtype(device: torch.device) -> torch.dtype:
    """The number format in which this device multiplies matrices fastest without losing training quality.

    bfloat16 on GPUs that have it and on CPUs with AMX or AVX512-bf16, float32 elsewhere (a CPU without
    those instructions emulates bfloat16, slower than float32).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    cpu = torch.cpu
    has_bf16 = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format in which tensors of `dtype` are multiplied on this device.

    Float32 for bfloat16 on a CPU without instructions for it, else `dtype` itself. bfloat16 instructions multiply
    exactly and add in float32 too, so only where the sum is rounded is left to the caller.
    """
    return fast_matmul_dtype(device) if device.type == "cpu" and dtype == torch.bfloat16 else dtype


def use_threads(threads: int) -> None:
    """Make torch use exactly the threads that the scheduler granted; results depend on it, run cards record it."""
    torch.set_num_threads(max(1, threads))
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def make_deterministic() -> None:
    """Ask for deterministic kernels: the same seed on the same machine gives the same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling new tensors would only make reads of uninitialised memory repeatable, and took a fifth of an update.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]  # untyped


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor of that size, instead of returning it to the system.

    By default each large tensor is mapped anew and every page of it faulted in: writing a fresh tensor of 38 MB took
    five times as long as writing a kept one. Only glibc has these settings (mallopt(3)); elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        largest = 2**30  # a 32-bit int; larger requests are still mapped
        mallopt(_M_MMAP_THRESHOLD, largest)
        mallopt(_M_TRIM_THRESHOLD, 2 * largest - 1)
