"""The script for accelerators runs where there is none, on tiny shapes; its numbers then say nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atlas.training.architectures import ARCHITECTURES

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def tiny() -> subprocess.CompletedProcess:
    call = [sys.executable, SCRIPT, "--tiny", "--rounds", "1", "--threads", "1"]
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_every_section_runs_tiny(tiny):
    assert tiny.returncode == 0, tiny.stderr[-3000:]
    found = json.loads(next(line for line in tiny.stdout.splitlines() if line.startswith("{")))
    assert set(found) >= {"same", "harvest llama", "harvest nemotron_h", "evaluate", "read"}
    assert {name for name in found if name.startswith("train")} == {
        "train topk, 64 rows", "train batch_topk, 64 rows", "train batch_topk, 16 rows"
    }  # fmt: skip
    updates = {name for name in found["same"] if name.startswith("20 updates")}
    assert {f"20 updates, {name}, dense" for name in ARCHITECTURES} <= updates
    assert {"20 updates, topk, sparse", "20 updates, batch_topk, sparse"} <= updates
    # On the CPU both sides are the same computation; on CUDA sums are taken in another order.
    assert torch.cuda.is_available() or max(found["same"].values()) == 0


@pytest.mark.slow
def test_a_device_that_computes_something_else_ends_the_run_with_an_error(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    found = {"float32 activations, llama": 0.0, "20 updates, topk, sparse": float("nan")}
    monkeypatch.setattr(gpu, "same", lambda device, folder: found)
    for section in ("harvesting", "evaluating", "training", "reading"):
        monkeypatch.setattr(gpu, section, lambda *_: {})
    monkeypatch.setattr(gpu, "random_model", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--threads", "1"])
    with pytest.raises(SystemExit, match=r"differ beyond the limits: \{'20 updates, topk, sparse': nan\}"):
        gpu.main()
    assert "20 updates" in capsys.readouterr().out
    right = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    wrong = torch.where(torch.arange(100) == 3, -right, right)
    assert gpu.difference(right, wrong) > max(gpu.LIMITS.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_full_size_without_a_gpu_is_refused():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "no GPU" in done.stderr
