"""Peak memory of loops that keep a little of every chunk, with freed memory kept as jobs keep it.

In a process of its own, whose peak nothing else has raised. glibc joins freed tensors only where nothing that is kept
lies between them: a loop that keeps parts can end with all chunks in memory at once.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from atlas.studies import cost

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

# In MB what the loop would hold if no chunk's memory were used again: 65,536 tokens x 1,024 rows of float32 (or 512
# latents and their opposites), or 16,384 latents x 8,192 rows. Addresses, which differ from run to run, decide what
# glibc can join: 50 to 146 MB were seen in 24 runs.
ALL_CHUNKS_MB = {"loss": 268, "kl": 268, "promoted": 268, "pages": 268, "reconstruct": 537, "encode": 537}
SCRIPT = """
import ctypes, gc, json, tempfile
from pathlib import Path
import torch
from atlas.autointerp.explainers import promoted_tokens
from atlas.codes.encode import _Entries, _entries
from atlas.devices import keep_freed_memory, make_deterministic
from atlas.evaluation.chunks import chunk_rows, reconstruct
from atlas.models.objectives import kl, per_token_loss
from atlas.site.logits import decoder_logits
from atlas.training.sae import Sae
from tiny import prepare_and_load, tiny_llama

torch.set_num_threads(1)
make_deterministic()
keep_freed_memory()
found = {}

libc = ctypes.CDLL(None)

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1000

def measure(name, function, *arguments):
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    function(*arguments)
    found[name] = status("VmHWM") - before

draw = torch.Generator().manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    source = tiny_llama(Path(folder) / "source", vocab_size=65_536, num_hidden_layers=1, initializer_range=0.02)
    loaded = prepare_and_load(source, Path(folder) / "prepared", 1)
ids = torch.randint(6, 65_536, (8, 128), generator=draw)
hidden = torch.randn(8, 128, 32, generator=draw)
measure("loss", per_token_loss, loaded, ids, hidden)
measure("kl", kl, loaded, hidden, 0.5 * hidden)
directions = torch.randn(512, 32, generator=draw)
measure("promoted", promoted_tokens, directions, loaded, [f" w{token}" for token in range(65_536)])
measure("pages", decoder_logits, directions, loaded)

W_dec = torch.nn.functional.normalize(torch.randn(16_384, 32, generator=draw), dim=1)
sae = Sae("topk", W_dec.T.contiguous(), torch.zeros(16_384), W_dec, torch.zeros(32), k=8)
rows = torch.randn(8192, 32, generator=draw)

def encode():
    entries = _Entries()
    for start in range(0, len(rows), chunk_rows(sae)):
        entries.add(*_entries(sae, rows[start : start + chunk_rows(sae)], start))

measure("reconstruct", reconstruct, sae, rows)
measure("encode", encode)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def rises() -> dict[str, float]:
    root = Path(__file__).parents[2]
    call = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {[str(root / 'workflow'), str(root / 'tests')]}\n" + SCRIPT,
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("loop", ALL_CHUNKS_MB)
def test_a_loop_uses_the_memory_of_its_chunks_again(rises, loop):
    assert rises[loop] < 0.65 * ALL_CHUNKS_MB[loop], json.dumps(rises)


def audited_peak(vocabulary: int, folder: Path) -> float:
    """Peak of an audit in MB: embedding and head of one matrix, 256 wide, float32."""
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    call = [sys.executable, script, "--stages", "audit", "--dtype", "float32", "--d-model", "256", "--n-layers", "1"]
    call += ["--vocabulary", str(vocabulary), "--tokens", "512", "--context-length", "128", "--scratch", str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])["audit"]
    assert found["peak_mb"] < found["granted_mb"]
    return found["peak_mb"]


@pytest.mark.slow
def test_memory_grows_with_the_vocabulary_as_it_is_granted(tmp_path):
    small, large = (cost.ModelSize(1, 256, 4, vocabulary) for vocabulary in (4096, 131_072))
    rise = audited_peak(large.vocabulary, tmp_path) - audited_peak(small.vocabulary, tmp_path)
    granted = cost.model_memory_mb(large, 1) - cost.model_memory_mb(small, 1)
    embedding = (large.vocabulary_bytes - small.vocabulary_bytes) / 2 / 1e6  # the head has none of its own
    assert 0.9 * embedding < rise < granted
