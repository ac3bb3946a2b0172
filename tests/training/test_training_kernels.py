"""The Triton kernels against the torch path. Triton's interpreter runs them on any machine, so no GPU is needed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import torch
from atlas.training import kernels
from atlas.training.products import Kept

kernels.available = lambda device: False
generator = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=generator)
n_rows, n_latents, width = 9, 21, 300  # more than two blocks of columns, and a part of one
mask = torch.rand(n_rows, n_latents, generator=generator) < 0.3
mask[4], mask[:, 7], mask[:, 3] = False, False, True  # an empty row, an empty latent, one that always fires
mask[4, 3] = False
flat = mask.view(-1).nonzero().squeeze(1)
values, by_row, by_latent = draw(len(flat)), draw(n_rows, width), draw(n_latents, width)


def results(kept):
    return kept.sums_by_row(values, by_latent), kept.sums_by_latent(values, by_row), kept.products(by_row, by_latent)


expected = results(Kept(flat, n_rows, n_latents))
dense = torch.zeros(n_rows * n_latents).index_copy(0, flat, values).view(n_rows, n_latents)
torch.testing.assert_close(expected[0], dense @ by_latent, rtol=1e-4, atol=1e-4)
kernels.available = lambda device: True
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
    for found, wanted in zip(results(Kept(flat, n_rows, n_latents, dtype)), expected, strict=True):
        assert found.dtype == torch.float32
        scale = wanted.abs().max()
        torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=tolerance)
again = results(Kept(flat, n_rows, n_latents, torch.float32))
assert all(map(torch.equal, again, results(Kept(flat, n_rows, n_latents, torch.float32))))
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """Where Triton can be imported from: torch's CUDA builds bring it, for CPU builds it is put beside the tests."""
    if importlib.util.find_spec("triton"):
        return []
    cache = os.environ.get("ATLAS_TEST_ENVIRONMENTS")
    folder = (Path(cache) if cache else tmp_path_factory.mktemp("environments")) / "triton"
    if not (folder / "triton").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", folder, "--requirement", ROOT / "envs" / "triton.txt"], check=True)
    return [str(folder)]


@pytest.mark.slow
def test_kernels_compute_what_the_torch_path_does(triton):
    path = os.pathsep.join([str(ROOT / "workflow"), *triton])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
