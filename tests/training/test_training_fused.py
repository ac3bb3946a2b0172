"""Fused kernels against torch's way and against plain loops: ragged shapes, ties, empty rows, threads, instructions."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.planted import CPU, PlantedStream, recipe

from atlas.training import kernel_cache, selection
from atlas.training.architectures import ARCHITECTURES
from atlas.training.architectures.base import LossInputs
from atlas.training.fused import compiled, lanes, passes
from atlas.training.products import Kept
from atlas.training.state import Numerics, new_state
from atlas.training.update import update

ROOT = Path(__file__).parents[2]
FUSED, SPARSE = Numerics.named(torch.float32, "fused"), Numerics.named(torch.float32, "sparse")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def selected(product, bias, architecture, k):
    """Flat indices that the kernels keep, and their values."""
    settings = recipe(architecture, n_latents=product.shape[1], k=k)
    parameters = {"b_enc": bias}
    batch = LossInputs(product, product, bias, parameters, settings, 0, product.dtype)
    entries = passes._select(compiled.kernels(bias.dtype), product, batch, ARCHITECTURES[architecture])
    places = [
        torch.arange(int(first), int(first + count))
        for first, count in zip(entries.starts, entries.counts, strict=True)
    ]
    rows = torch.repeat_interleave(torch.arange(len(product)), entries.counts.long())
    places = torch.cat(places)
    return rows * product.shape[1] + entries.latents[places].long(), entries.values[places]


KINDS = ["normal", "tied", "negative", "subnormal", "broken"]
matrices = st.tuples(st.integers(0, 2**31), st.integers(1, 9), st.integers(2, 700), st.sampled_from(KINDS))


def drawn(seed, n_rows, n_latents, kind, dtype):
    product = draw(n_rows, n_latents, seed=seed)
    if kind == "tied":
        product = (2 * product).round()
    if kind == "negative":
        product -= 2.5
    if kind == "subnormal":
        product *= 1e-39
    if kind == "broken":
        product[0, ::3], product[-1, ::5] = torch.nan, torch.inf
    bias = torch.zeros(n_latents) if kind == "subnormal" else draw(n_latents, seed=seed + 1).round()
    return product.to(dtype), bias.to(torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
@settings(max_examples=60, deadline=None)
@given(matrix=matrices, share=st.floats(0, 1))
def test_selection_is_torchs_to_the_last_value(architecture, dtype, matrix, share):
    """Ties by lowest index, rows without a positive value, numbers that are none, any width and k."""
    product, bias = drawn(*matrix, dtype)
    k = max(1, int(share * (product.shape[1] - 1)))
    pre = product.to(bias.dtype) + bias
    select = ARCHITECTURES[architecture].select
    # A value that is not a number is never kept; torch puts it first, where it takes the place of another one.
    expected = select(pre.nan_to_num(nan=-1.0, posinf=torch.inf), k).sort().values
    found, values = selected(product, bias, architecture, k)
    assert found.tolist() == expected.tolist()  # in ascending order
    assert torch.equal(values, pre.view(-1)[expected])


def test_a_guess_that_is_too_high_costs_time_only(monkeypatch):
    product, bias = drawn(0, 8, 300, "normal", torch.float32)
    expected = selected(product, bias, "batch_topk", 40)[0]
    monkeypatch.setattr(passes, "floor_of_sample", lambda sample, n, wanted: 3.0)
    assert torch.equal(selected(product, bias, "batch_topk", 40)[0], expected)
    assert torch.equal(expected, selection.select_batch(product + bias, 40))


def kept_entries(n_rows, n_latents, share, seed=0):
    """Random entries with a row and a latent that have none, and a latent that each other row keeps."""
    mask = torch.rand(n_rows, n_latents, generator=torch.Generator().manual_seed(seed)) < share
    mask[:, 0] = True
    mask[n_rows // 2], mask[:, n_latents // 2] = False, False
    flat = mask.view(-1).nonzero().squeeze(1)
    counts = mask.sum(dim=1).int()
    return flat, counts.cumsum(0) - counts, counts, (flat % n_latents).int()


# Widths around the vectors of 16 and the blocks of 64, rows around the blocks of 64.
SHAPES = [(1, 2, 1), (9, 21, 300), (64, 40, 64), (130, 33, 79), (200, 5, 129)]


@pytest.mark.parametrize(("n_rows", "n_latents", "width"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1, 64, 1000])
def test_sums_are_those_of_plain_loops_to_the_bit(n_rows, n_latents, width, dtype, block):
    """A sum adds one entry after the other, row by row; so do the loops here, which round each product and sum."""
    flat, starts, counts, latents = kept_entries(n_rows, n_latents, 0.3)
    values, gradients = draw(len(flat), seed=1).to(dtype), draw(len(flat), seed=2).to(dtype)
    table = draw(n_rows, width, seed=3).to(dtype)
    loops, array, number = compiled.kernels(dtype), passes._array, passes._scalar(dtype)
    buckets = torch.empty(-(-n_rows // block) * n_latents + 1, dtype=torch.int64)
    rows, by_latent, of_bias = (
        torch.empty_like(latents),
        [torch.empty_like(values) for _ in range(2)],
        values.new_empty(n_latents),
    )
    sorted_arrays = map(array, (buckets, rows, *by_latent, of_bias))
    loops["sort_by_latent"](*map(array, (starts.long(), counts, latents, values, gradients)), block, *sorted_arrays)
    out = values.new_empty(n_latents, width)
    arguments = (0, n_latents, *map(array, (buckets, rows, by_latent[0], table)), number(-0.5), array(out))
    compiled.run(loops["sum_by_latent"], n_latents, *arguments)

    expected, bias = np.zeros((n_latents, width), number), np.zeros(n_latents, number)
    for entry, place in enumerate(flat.tolist()):
        row, latent = divmod(place, n_latents)
        expected[latent] += number(values[entry].item()) * table[row].numpy()
        bias[latent] += number(gradients[entry].item())
    assert np.array_equal(out.numpy(), expected * number(-0.5))
    assert np.array_equal(of_bias.numpy(), bias)
    torch_sums = -0.5 * Kept(flat, n_rows, n_latents).sums_by_latent(values, table)
    torch.testing.assert_close(out, torch_sums, rtol=1e-4, atol=1e-4)


def by_lanes(left, right):
    """The sum that `lanes.dot` documents, in NumPy: interleaved sums, added in vectors of 16, upper to lower half."""
    whole = len(left) - len(left) % lanes.DOT_BLOCK
    total = np.zeros(lanes.DOT_BLOCK, left.dtype)
    for at in range(0, whole, lanes.DOT_BLOCK):
        total += left[at : at + lanes.DOT_BLOCK] * right[at : at + lanes.DOT_BLOCK]
    vectors = total.reshape(-1, lanes.LANES)
    found = vectors[0]
    for vector in vectors[1:]:
        found = found + vector
    while len(found) > 1:
        found = found[: len(found) // 2] + found[len(found) // 2 :]
    found = found[0]
    for at in range(whole, len(left)):
        found += left[at] * right[at]
    return found


@pytest.mark.parametrize("width", [1, 15, 64, 65, 200, 576])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalar_products_have_the_documented_order(width, dtype):
    table, squares = draw(7, width).to(dtype), torch.empty(7, dtype=dtype)
    compiled.run(compiled.kernels(dtype)["squared_norms"], 7, passes._array(table), passes._array(squares))
    assert squares.tolist() == [by_lanes(row, row).item() for row in table.numpy()]
    torch.testing.assert_close(squares, table.square().sum(dim=1))


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka_batch_topk"])
def test_one_update_is_torchs_within_rounding(architecture):
    """In float32 and in the format of products; more updates part as soon as rounding decides what is kept."""
    shape = recipe(architecture, n_latents=203, k=7, warmup_steps=0, batch_size=97)
    rows = PlantedStream(d_model=45, batch_size=97, scale=0.3).batch(0).rows
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for products in ("sparse", "fused"):
            state = new_state(shape, 45, 0, CPU)
            report = update(state, rows, shape, Numerics.named(dtype, products), "planted")
            found.append((state, report))
        (sparse, seen), (fused, also) = found
        assert torch.equal(fused.tokens_since_fired, sparse.tokens_since_fired) and also.l0 == seen.l0
        for name in ("loss", "squared_error", "gradient_norm"):
            torch.testing.assert_close(getattr(also, name), getattr(seen, name), rtol=1e-5, atol=0)
        for moment in ("mean", "mean_square"):
            for name, value in getattr(sparse.optimizer, moment).items():
                largest = value.abs().max()
                ours = getattr(fused.optimizer, moment)[name]
                torch.testing.assert_close(ours / largest, value / largest, rtol=0, atol=1e-5)


def test_bfloat16_rows_are_rounded_as_torch_rounds_them():
    rows = torch.cat(
        [draw(50, 64), torch.tensor([[torch.inf, -torch.inf, torch.nan, 3.4e38, -0.0, 1e-40] + [1.0] * 58])]
    )
    halves, centred = torch.empty(rows.shape, dtype=torch.int16), torch.empty_like(rows)
    arrays = map(passes._array, (rows, draw(64, seed=1), centred, halves))
    compiled.run(compiled.kernels(torch.float32)["centre"], len(rows), *arrays)
    expected = (rows - draw(64, seed=1)).bfloat16()
    assert torch.equal(halves.view(torch.bfloat16).nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0))
    assert torch.equal(halves.view(torch.bfloat16).isnan(), expected.isnan())


PROGRAM = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from training.planted import CPU, recipe
from atlas.training.fused import passes
from atlas.training.state import Numerics, new_state
from atlas.training.update import update
# The product of rows and encoder is torch's; here each machine gets the same one.
passes._encode = lambda loops, batch: (
    batch.rows - batch.centre.detach(),
    ((batch.rows - batch.centre.detach())[:, :, None].double() * batch.parameters["W_enc"].detach()).sum(1).float(),
)
digest = hashlib.sha256()
for architecture in ("topk", "matryoshka_batch_topk"):
    settings = recipe(architecture, n_latents=157, k=6, warmup_steps=0, batch_size=131)
    state = new_state(settings, 77, 0, CPU)
    for step in range(3):
        rows = torch.randn(131, 77, generator=torch.Generator().manual_seed(step))
        update(state, rows, settings, Numerics.named(torch.float32, "fused"), "planted")
    for name in sorted(state.parameters):
        digest.update(state.parameters[name].detach().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def digest(threads, **settings):
    path = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(threads)],
        env=os.environ | {"PYTHONPATH": path} | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@pytest.mark.slow
def test_bits_depend_neither_on_threads_nor_on_vector_instructions(tmp_path):
    """Compiled for this processor with one and three threads, and for the plainest one of its kind."""
    expected = digest(1)
    assert digest(3) == expected
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "ATLAS_KERNELS": str(tmp_path)}
    assert digest(1, **plain) == expected


def test_two_ranges_of_rows_are_one(monkeypatch):
    """The same weights to the bit for any number of threads, whoever takes which part."""
    shape = recipe(n_latents=64, k=5, warmup_steps=0)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        state = new_state(shape, 32, 0, CPU)
        for step in range(3):
            update(state, PlantedStream(scale=0.3, batch_size=256).batch(step).rows, shape, FUSED, "planted")
        found.append(state)
    for state in found[1:]:
        for name, value in found[0].parameters.items():
            assert torch.equal(state.parameters[name], value)


def test_compiled_code_is_kept_verified_and_private(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ATLAS_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(compiled, "_signatures", lambda name: {"total": [(compiled.types.float32[::1],)]})
    fresh = compiled.kernels.__wrapped__

    def misses():
        return sum(sum(loop.stats.cache_misses.values()) for loop in fresh(torch.float32).values())

    assert misses() == 1 and misses() == 0
    (folder,) = (tmp_path / "kernels").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    (data,) = folder.rglob("*.nbc")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert misses() == 1 and "compiled anew" in caplog.text
    assert misses() == 0
    folder.chmod(0o777)
    assert misses() == 1 and "others may write to it: their code is not run" in caplog.text
    folder.chmod(0o700)
    caplog.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert misses() == 1 and "belongs to another user" in caplog.text


def test_a_cache_that_cannot_be_written_is_said_and_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATLAS_KERNELS", str(tmp_path / "file"))
    monkeypatch.setattr(compiled, "_signatures", lambda name: {"total": [(compiled.types.float32[::1],)]})
    total = compiled.kernels.__wrapped__(torch.float32)["total"]
    assert total(np.ones(3, np.float32)) == 3 and "for this process alone" in caplog.text


def test_other_processes_wait_for_the_one_that_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_KERNELS", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "PATIENCE_SECONDS", 0.2)
    with (
        kernel_cache.locked_folder("one"),
        kernel_cache.locked_folder("two"),
        pytest.raises(BlockingIOError),
        kernel_cache.locked_folder("one"),
    ):
        pass
    with kernel_cache.locked_folder("one"):
        pass
