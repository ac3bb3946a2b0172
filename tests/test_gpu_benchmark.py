"""The script for accelerators runs where there is none, on tiny shapes; its numbers then say nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_section_runs_tiny():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--tiny", "--rounds", "1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) >= {"same", "harvest llama", "harvest nemotron_h", "evaluate", "train", "read"}
    # On the CPU both sides are the same computation; on CUDA float32 sums are taken in another order.
    assert max(found["same"].values()) <= (1e-3 if torch.cuda.is_available() else 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_full_size_without_a_gpu_is_refused():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "no GPU" in done.stderr
