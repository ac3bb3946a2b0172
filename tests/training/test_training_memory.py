"""Out of memory: smaller micro-batches, the same update."""

import copy
import gc
import subprocess
import sys

import pytest
import torch
from training.planted import CPU, PlantedStream, exact_state, recipe

from atlas.errors import TrainingError
from atlas.training import update as update_module
from atlas.training.architectures import ARCHITECTURES
from atlas.training.forward import forward
from atlas.training.memory import MicroBatch, attempt
from atlas.training.state import Numerics, new_state
from atlas.training.update import update

DENSE, SPARSE = Numerics(torch.float32, sparse=False), Numerics(torch.float32, sparse=True)
CUDA_MESSAGE = "CUDA out of memory. Tried to allocate 20.00 GiB."
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"


@pytest.fixture
def little_memory(monkeypatch):
    """Forward passes of more than `limit` rows fail; the sizes that were tried are kept."""

    class Memory:
        def __init__(self, limit=10**9, error=None, fail_at_call=None):
            self.limit, self.error, self.fail_at_call, self.tried = limit, error, fail_at_call, []

    memory = Memory(error=torch.OutOfMemoryError(CUDA_MESSAGE))

    def limited(batch, sparse):
        memory.tried.append(len(batch.rows))
        if len(batch.rows) > memory.limit or len(memory.tried) == memory.fail_at_call:
            raise memory.error
        return forward(batch, sparse)

    monkeypatch.setattr(update_module, "forward", limited)
    return memory


def trained(settings, numerics=DENSE, steps=12, micro_batch=None):
    exact = numerics.dtype == torch.float64
    state = exact_state(settings, 32, 0) if exact else new_state(settings, 32, 0, CPU)
    stream = PlantedStream(batch_size=settings.batch_size, scale=0.3, dtype=numerics.dtype)
    reports = [
        update(state, stream.batch(step).rows, settings, numerics, "planted", micro_batch=micro_batch)
        for step in range(steps)
    ]
    return state, reports[-1]


@pytest.mark.parametrize("numerics", [DENSE, SPARSE])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensors_are_freed_without_a_search_for_garbage(architecture, numerics):
    """Jobs search for it rarely (atlas.job); a tensor in a cycle of references would be kept until then."""
    trained(recipe(architecture), steps=1)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        trained(recipe(architecture), numerics, steps=3, micro_batch=MicroBatch(64))
        gc.collect()
        assert not [found for found in gc.garbage if isinstance(found, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("architecture", "products"),
    [("topk", "dense"), ("topk", "sparse"), ("topk", "fused"), ("relu", "dense"), ("gated", "dense")],
)
@pytest.mark.parametrize("rows", [64, 100])
def test_micro_batches_make_the_update_of_the_whole_batch(architecture, products, rows):
    """100 rows leave a smaller last part; latents die within 12 steps, so the auxiliary loss takes part in topk."""
    settings, exact = recipe(architecture, dead_feature_tokens=512), Numerics.named(torch.float64, products)
    whole, seen = trained(settings, exact)
    split, also = trained(settings, exact, micro_batch=MicroBatch(rows))
    assert architecture != "topk" or (seen.dead > 0 and seen.auxiliary > 0)
    for name, value in whole.parameters.items():
        torch.testing.assert_close(split.parameters[name], value, rtol=1e-7, atol=1e-7)
    assert torch.equal(split.tokens_since_fired, whole.tokens_since_fired)
    assert also.dead == seen.dead
    for name in ("loss", "squared_error", "auxiliary", "gradient_norm"):
        torch.testing.assert_close(getattr(also, name), getattr(seen, name), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(also.l0, seen.l0, rtol=1e-6, atol=0)  # a mean of counts, in float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_in_micro_batches(architecture):
    settings = recipe(architecture, dead_feature_tokens=512)
    state, report = trained(settings, micro_batch=MicroBatch(64), steps=30)
    _, whole = trained(settings, steps=30)
    assert report.squared_error < 1.1 * whole.squared_error
    if ARCHITECTURES[architecture].has_threshold:
        assert state.threshold > 0


def test_the_threshold_follows_the_smallest_value_of_all_micro_batches():
    settings = recipe("batch_topk", threshold_start_step=0, warmup_steps=10)
    stream, state = PlantedStream(batch_size=256, scale=0.3), new_state(settings, 32, 0, CPU)
    state.step = 1
    rows = stream.batch(0).rows
    with torch.no_grad():
        pre = (rows - state.parameters["b_dec"]) @ state.parameters["W_enc"] + state.parameters["b_enc"]
    smallest = [part.flatten().topk(3 * 64).values.min() for part in pre.split(64)]
    update(state, rows, settings, DENSE, "planted", micro_batch=MicroBatch(64))
    torch.testing.assert_close(state.threshold, min(smallest))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(CUDA_MESSAGE), RuntimeError(CPU_MESSAGE)])
def test_running_out_of_memory_halves_until_it_fits_and_stays_there(little_memory, caplog, error):
    settings = recipe()
    expected, _ = trained(settings, micro_batch=MicroBatch(64))
    little_memory.limit, little_memory.error, little_memory.tried = 80, error, []
    micro_batch = MicroBatch(256)
    state, _ = trained(settings, micro_batch=micro_batch)
    assert micro_batch.rows == 64
    assert micro_batch.halvings == [{"step": 0, "rows": 128}, {"step": 0, "rows": 64}]
    assert little_memory.tried[:3] == [256, 128, 64]
    assert set(little_memory.tried[3:]) == {64}
    assert all(torch.equal(state.parameters[name], value) for name, value in expected.parameters.items())
    assert "step 0: out of memory; from now on 64 rows at a time" in caplog.text
    (warning,) = micro_batch.warnings(settings)
    assert warning.startswith(
        "out_of_memory: a batch of 256 rows did not fit; since step 0 64 rows pass at a time (halvings: 2)"
    )
    assert "each micro-batch" not in warning
    assert "what batch_topk takes from a whole batch it took from each" in micro_batch.warnings(recipe("batch_topk"))[0]


def test_a_failed_attempt_leaves_no_trace(little_memory):
    """The third of four parts fails, after two backward passes: the retry must start from nothing."""
    settings = recipe("batch_topk", dead_feature_tokens=10**6, threshold_start_step=0)
    expected, report = trained(settings, micro_batch=MicroBatch(32), steps=3)
    state, _ = trained(settings, micro_batch=MicroBatch(32), steps=2)
    rows = PlantedStream(batch_size=256, scale=0.3).batch(2).rows
    before = copy.deepcopy((state.threshold, state.tokens_since_fired, state.step))
    little_memory.tried, little_memory.fail_at_call = [], 3
    seen = []

    class Spy(MicroBatch):
        def halve(self, step, recipe):
            seen.append((state.threshold, state.tokens_since_fired, state.step))
            super().halve(step, recipe)

    again = update(state, rows, settings, DENSE, "planted", micro_batch=Spy(64))
    (inside,) = seen
    assert torch.equal(inside[0], before[0]) and torch.equal(inside[1], before[1]) and inside[2] == before[2]
    assert all(torch.equal(state.parameters[name], value) for name, value in expected.parameters.items())
    assert torch.equal(state.threshold, expected.threshold)
    assert torch.equal(again.loss, report.loss)


def test_no_row_fits(little_memory):
    little_memory.limit = 0
    with pytest.raises(TrainingError, match=r"step 0: out of memory even with one row .*64 latents.*lower n_latents"):
        trained(recipe(batch_size=8))


def test_parity_allows_no_micro_batches(little_memory):
    little_memory.limit = 128
    with pytest.raises(TrainingError, match="out of memory with a batch of 256 rows, and parity with dictionary_learn"):
        trained(recipe(parity="dictionary_learning"))


def test_the_cpus_allocator_is_recognised_and_other_errors_are_not_hidden():
    assert attempt(lambda: torch.empty(2**58)) is None  # a real failure: more than any machine has
    assert attempt(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        attempt(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


SCRIPT = """
import resource, sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from training.planted import CPU, PlantedStream, recipe
from atlas.training.memory import MicroBatch
from atlas.training.state import Numerics, new_state
from atlas.training.update import update

settings = recipe(n_latents=32768, batch_size=2048)
state, micro_batch = new_state(settings, 32, 0, CPU), MicroBatch(2048)
rows = PlantedStream(batch_size=2048, scale=0.3).batch(0).rows
if {gib}:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int({gib} * 2**30),) * 2)
report = update(state, rows, settings, Numerics(torch.float32, sparse=False), "planted", micro_batch=micro_batch)
print(report.loss.item(), report.gradient_norm.item(), micro_batch.rows)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space of a process is limited as on Linux")
def test_a_process_that_may_have_little_memory_makes_the_same_update():
    """Not an injected error: the allocator itself fails. A batch has 256 MiB of pre-activations; 512 are allowed."""
    paths = [path for path in sys.path if path.endswith(("workflow", "tests"))]
    seen = []
    for gib in (0, 0.5):
        code = SCRIPT.format(paths=paths, gib=gib)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        seen.append([float(number) for number in done.stdout.split()])
    (*free, whole), (*limited, rows) = seen
    assert whole == 2048
    assert rows < 2048
    assert limited == pytest.approx(free, rel=1e-4)
