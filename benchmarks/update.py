"""Measure the parts of one training update, against the limits of this machine's arithmetic and memory.

    python benchmarks/update.py --shape 576 4608 32 2048 --threads 2

    python benchmarks/update.py --shape 576 400 32 1024 --threads 1 --clock cpu

The whole update is measured with each kind of kernels in turn: sparse (torch's), fused, and dense where --dense asks
for it; all have weights of their own. `--clock cpu` takes the processor time of the one thread, which other programs
disturb less. For each part of torch's way: operations and bytes per row as counted in docs/performance.md, its time,
and the least time that the measured rate of products and the measured memory bandwidth leave for it. Both limits are
taken in the same run, interleaved with the parts, because machines differ from minute to minute. Prints a table and, as
the last line, JSON.
"""

import argparse
import json
import operator
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.config.recipe import Recipe
from atlas.devices import choose_device, keep_freed_memory, make_deterministic, use_threads
from atlas.training.optimise import apply_gradients, project
from atlas.training.products import Kept, pre_activations
from atlas.training.selection import select_batch, select_rows
from atlas.training.state import Numerics, choose_numerics, new_state
from atlas.training.update import update

WHOLE = "whole update"
FLOAT, COMPUTE = 4, {torch.float32: 4, torch.bfloat16: 2}


@dataclass(frozen=True)
class Part:
    """A part of an update: what it does, and how many operations and bytes that takes."""

    run: Callable[[], object]
    operations: float
    moved: float
    dense: bool = False


def parts(
    d_model: int, n_latents: int, k: int, batch: int, select: str, device: torch.device, ways: tuple[str, ...]
) -> dict[str, Part]:
    """The parts of an update over rows with a few strong directions, so that latents fire unevenly as real ones do."""
    generator = torch.Generator().manual_seed(0)
    recipe = Recipe(architecture=select, n_latents=n_latents, k=k, steps=10**6, batch_size=batch, lr=1e-3)
    state, numerics = new_state(recipe, d_model, 0, device), choose_numerics(recipe, device)
    codes = torch.randn(batch, 64, generator=generator).relu() @ torch.randn(64, d_model, generator=generator)
    rows = (codes + torch.randn(batch, d_model, generator=generator)).to(device)
    rows = rows / rows.square().sum(dim=1).mean().sqrt()
    p = {name: value.detach() for name, value in state.parameters.items()}
    choose = {"topk": select_rows, "batch_topk": select_batch}[select]
    pre = pre_activations(rows, p["W_enc"], p["b_enc"], numerics.dtype)
    kept = Kept(choose(pre, k), batch, n_latents, numerics.dtype)
    values = pre.view(-1)[kept.flat]
    n_kept, weights = len(kept.flat), d_model * n_latents
    width = COMPUTE[numerics.dtype]

    def fresh() -> Kept:
        return Kept(kept.flat, batch, n_latents, numerics.dtype)

    def optimise() -> None:
        for value in state.parameters.values():
            value.grad = torch.full_like(value, 1e-6)
        apply_gradients(state, recipe, project(state))

    def step(way: str) -> Callable[[], object]:
        own, named = new_state(recipe, d_model, 0, device), Numerics.named(numerics.dtype, way)
        return lambda: update(own, rows, recipe, named, "benchmark")

    gathered = FLOAT * n_kept * d_model
    encode_bytes = width * (batch * d_model + 2 * weights + batch * n_latents) + FLOAT * (weights + batch * n_latents)
    return {
        "encode": Part(
            lambda: pre_activations(rows, p["W_enc"], p["b_enc"], numerics.dtype),
            2.0 * batch * weights,
            encode_bytes,
            dense=True,
        ),
        "select": Part(lambda: choose(pre, k), batch * n_latents, FLOAT * batch * n_latents),
        "decode": Part(lambda: fresh().sums_by_row(values, p["W_dec"]), 2.0 * n_kept * d_model, gathered),
        "gradient of values": Part(lambda: fresh().products(rows, p["W_dec"]), 2.0 * n_kept * d_model, gathered),
        "gradient of W_dec": Part(lambda: fresh().sums_by_latent(values, rows), 2.0 * n_kept * d_model, gathered),
        "gradient of W_enc": Part(lambda: fresh().sums_by_latent(values, rows), 2.0 * n_kept * d_model, gathered),
        # Gradients: written (here filled), projected (6 passes over W_dec), their norm, Adam (8), decoder rows (3).
        "optimise": Part(optimise, 30.0 * weights, FLOAT * weights * (2 + 6 + 2 + 16 + 3)),
    } | {f"{WHOLE}, {way}": Part(step(way), 0.0, 0.0) for way in ways}


def limits(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> dict[str, Callable[[], float]]:
    """Functions that measure the rate of products (operations/s) and the bandwidth of a copy (bytes/s) once."""
    size = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.randn(2**26 if device.type == "cpu" else 2**29, device=device)
    target = torch.empty_like(source)
    return {
        "products": lambda: 2 * size**3 / seconds(lambda: left @ right, device, clock),
        "bandwidth": lambda: 2 * source.nbytes / seconds(lambda: target.copy_(source), device, clock),
    }


def seconds(run: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(576, 4608, 32, 2048), metavar=("D", "F", "K", "B"))
    parser.add_argument("--architecture", choices=("topk", "batch_topk"), default="topk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--dense", action="store_true", help="measure an update with dense products too")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    make_deterministic()
    keep_freed_memory()
    device = choose_device(int(arguments.gpu))

    if arguments.clock == "cpu" and (arguments.threads > 1 or arguments.gpu):
        parser.error("--clock cpu counts one thread: use it with --threads 1 and without --gpu")
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    ways = ("sparse", *(["fused"] if device.type == "cpu" else []), *(["dense"] if arguments.dense else []))
    found = parts(*arguments.shape, arguments.architecture, device, ways)
    recipe = Recipe(architecture="topk", n_latents=arguments.shape[1], k=arguments.shape[2], steps=10**6)
    dtype = choose_numerics(recipe, device).dtype
    measures = limits(device, dtype, clock)
    times: dict[str, list[float]] = {name: [] for name in found}
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for repetition in range(arguments.repetitions + 2):
        for name, part in found.items():
            taken = seconds(part.run, device, clock)
            if repetition >= 2:
                times[name].append(taken)
        for name, measure in measures.items():
            rates[name].append(measure())
    report(arguments, found, times, rates, dtype, device)


def report(arguments, found, times, rates, dtype, device) -> None:
    d_model, n_latents, k, batch = arguments.shape
    products, bandwidth = (statistics.median(rates[name]) for name in ("products", "bandwidth"))
    print(f"d_model {d_model}, {n_latents} latents, k {k}, batch {batch}, {arguments.architecture}, {device.type}")
    print(f"{str(dtype).removeprefix('torch.')} products {products / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s")
    print(f"{'part':<20}{'MFLOP/row':>10}{'kB/row':>8}{'ms':>8}{'limit ms':>10}{'of limit':>10}")
    rows, total = {}, 0.0
    for name, part in found.items():
        taken = statistics.median(times[name])
        limit = max(part.moved / bandwidth, part.operations / products if part.dense else 0.0)
        whole = name.startswith(WHOLE)
        limit = total if whole else limit
        total += 0.0 if whole else limit
        rows[name] = {"ms": 1e3 * taken, "limit_ms": 1e3 * limit, "of_limit": limit / taken}
        print(
            f"{name:<20}{part.operations / batch / 1e6:>10.3f}{part.moved / batch / 1e3:>8.1f}"
            f"{1e3 * taken:>8.2f}{1e3 * limit:>10.2f}{limit / taken:>10.2f}"
        )
    sparse = times[f"{WHOLE}, sparse"]
    encode = statistics.median(times["encode"])
    for name in (name for name in found if name.startswith(WHOLE)):
        whole, ratio = statistics.median(times[name]), statistics.median(map(operator.truediv, sparse, times[name]))
        print(
            f"{name}: {batch / whole:.0f} rows/s, {ratio:.2f} times as fast as sparse (median of the ratios; of the "
            f"least times {min(sparse) / min(times[name]):.2f}); the encoder alone is {encode / whole:.2f} of it"
        )
    print(json.dumps({"shape": arguments.shape, "products": products, "bandwidth": bandwidth, "parts": rows}))


if __name__ == "__main__":
    main()
