"""Code that the runners of all peers share: the job, its rows, and what a run writes.

A runner is a plain script that a peer's own environment runs in isolated mode, where this project's library cannot be
imported: these scripts import the standard library, numpy, torch, safetensors and the peer, nothing else. In this
folder `train_<peer>.py` is the runner of a peer and holds what is particular to it, this file what they share.

    ENVIRONMENT/bin/python -I workflow/peers/train_sparsify.py JOB.json FOLDER

JOB.json (atlas.frameworks.job writes it) names the recipe, the files with the rows, and which rows make up each batch.
FOLDER receives `weights.safetensors` and `result.json`. Weights have one layout for all peers, in float32, for rows
divided by the job's `scale`: W_enc (d_model, n_latents), b_enc, W_dec (n_latents, d_model), b_dec, and for batch_topk
threshold (). They mean: pre-activations ``(x - b_dec) @ W_enc + b_enc``; kept are the k largest of a row, rectified, or
those above the threshold; reconstruction ``latents @ W_dec + b_dec``.
"""

import importlib.metadata
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Of the first steps, which allocate memory and make the first call of every kernel.
UNTIMED_STEPS = 3


@dataclass(frozen=True)
class Job:
    """The recipe, in the words of this project's recipes, and where the rows are.

    `files` have `path`, `offset` in bytes and `n_rows`; row numbers count through all of them. `order` is a .npy file
    with the row numbers of every batch, (steps, batch_size). Rows are divided by `scale`. `options` belong to the
    runner of one peer.
    """

    architecture: str
    d_model: int
    n_latents: int
    k: int
    lr: float
    steps: int
    batch_size: int
    warmup_steps: int
    decay_start: int | None
    aux_coefficient: float
    dead_feature_tokens: int
    threshold_beta: float
    threshold_start_step: int
    seed: int
    threads: int
    device: str
    files: list[dict[str, Any]]
    storage_dtype: str
    scale: float
    order: str
    options: dict[str, Any] = field(default_factory=dict)

    def option(self, name: str, choices: tuple) -> Any:
        """An option of the runner, the first choice if it is not given."""
        value = self.options.get(name, choices[0])
        if value not in choices:
            sys.exit(f"option {name} is {value!r}: expected one of {', '.join(map(repr, choices))}")
        return value


class Rows:
    """The batches of a job. `requested` notes when each was asked for, which is when an update began."""

    def __init__(self, job: Job):
        import numpy as np

        self.job, self.requested = job, []
        self.order = np.load(job.order, mmap_mode="r")
        kind = {"bfloat16": np.uint16, "float32": np.float32}[job.storage_dtype]
        self._maps = [
            np.memmap(file["path"], kind, "r", file["offset"], (file["n_rows"], job.d_model)) for file in job.files
        ]
        self.first = np.cumsum([0, *(file["n_rows"] for file in job.files)])

    def batch(self, step: int):
        """Rows of a step, float32 (batch, d_model), divided by the scale."""
        self.ask()
        return self.stored(step).float() / self.job.scale

    def ask(self) -> None:
        """Note that a batch is asked for."""
        self.requested.append(time.perf_counter())

    def stored(self, step: int):
        """Rows of a step as stored, in their number format."""
        return self.numbered(self.order[step])

    def numbered(self, numbers):
        """Rows of these numbers, as stored."""
        import numpy as np
        import torch

        rows = np.empty((len(numbers), self.job.d_model), self._maps[0].dtype)
        for start, stop, stored in zip(self.first[:-1], self.first[1:], self._maps, strict=True):
            here = (numbers >= start) & (numbers < stop)
            rows[here] = stored[numbers[here] - start]
        copy = torch.from_numpy(rows)
        return copy.view(torch.bfloat16) if self.job.storage_dtype == "bfloat16" else copy


def run(train: Callable[[Job, Rows], dict[str, Any]], distribution: str) -> None:
    """Read the job named on the command line, train, and write weights and result."""
    job_file, folder = Path(sys.argv[1]), Path(sys.argv[2])
    job = Job(**json.loads(job_file.read_text(encoding="utf-8")))
    # Before torch is imported: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    rows = Rows(job)
    started = time.perf_counter()
    weights = train(job, rows)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: w.detach().float().cpu().contiguous() for name, w in weights.items()}, folder / "weights.safetensors"
    )
    result = {
        "version": importlib.metadata.version(distribution),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        **speed(rows.requested, job.batch_size),
        "peak_memory_mb": peak_memory_mb(),
    }
    if job.device == "cuda":
        result["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def speed(requested: list[float], batch_size: int) -> dict[str, Any]:
    """Rows per second between the requests for batches, after the first steps; null where too few are left."""
    timed = requested[UNTIMED_STEPS:]
    steps = [after - before for before, after in itertools.pairwise(timed)]
    if not steps:
        return {"rows_per_second": None, "timed_steps": 0, "median_step_seconds": None, "fastest_step_seconds": None}
    return {
        "rows_per_second": batch_size * len(steps) / (timed[-1] - timed[0]),
        "timed_steps": len(steps),
        "median_step_seconds": sorted(steps)[len(steps) // 2],
        "fastest_step_seconds": min(steps),
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes).

    Linux keeps it per program as VmHWM; getrusage would count what the starting process had, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
