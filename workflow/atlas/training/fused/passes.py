"""Forward and backward pass of a batch and the optimiser, from the compiled loops.

All sums have an order of their own: results are the same bits for any number of threads and any vector instructions,
given the same product of rows and encoder. Memory comes from torch's allocator, whose errors `memory.attempt` knows.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.training.adam import EPSILON, Adam, in_memory_order
from atlas.training.architectures.base import Architecture, LossInputs
from atlas.training.fused.compiled import Kernels, kernels, run
from atlas.training.fused.lanes import COLUMNS, LANES
from atlas.training.selection import floor_of_sample, sample_stride, select_batch

# Blocks of rows of the sums by latent: large enough for this many entries of a latent, on average.
_ENTRIES_PER_BLOCK, _SMALLEST_BLOCK = 32, 64
_KEYS = {torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass(frozen=True)
class Entries:
    """Kept latents of a batch: row i has `counts[i]` of them from place `starts[i]` on, in ascending order."""

    starts: Int[Tensor, " batch"]
    counts: Int[Tensor, " batch"]
    latents: Int[Tensor, " places"]
    values: Float[Tensor, " places"]


@dataclass(frozen=True)
class Pass:
    """Result of a batch: residuals of the nested reconstructions as `reconstruct` leaves them, the last group's own.

    `errors` are squared errors of each row and group; `values` the kept values where they lie without gaps.
    """

    entries: Entries
    residuals: Float[Tensor, "groups batch d_target"]
    errors: Float[Tensor, "batch groups"]
    fired: Bool[Tensor, " n_latents"]
    centred: Float[Tensor, "batch d_model"]
    buckets: Int[Tensor, " ends"]
    rows: Int[Tensor, " places"]
    sorted_values: Float[Tensor, " places"]
    sorted_gradients: Float[Tensor, " places"]
    of_bias: Float[Tensor, " n_latents"]
    ends: tuple[int, ...]
    factor: float


@torch.no_grad()
def forward(batch: LossInputs, architecture: Architecture, factor: float) -> Pass:
    """Select, reconstruct, and take the gradients of the kept values; `factor` is that of the residual's gradient."""
    p = batch.parameters
    W_dec, n_rows, n_latents = p["W_dec"].detach(), len(batch.rows), p["W_dec"].shape[0]
    loops, real = kernels(W_dec.dtype), _scalar(W_dec.dtype)
    centred, product = _encode(loops, batch)
    entries = _select(loops, product, batch, architecture)
    sizes = (n_latents,) if architecture.groups is None else architecture.groups(batch.recipe)
    ends = torch.tensor(sizes).cumsum(0)
    residuals = W_dec.new_empty(len(sizes), n_rows, W_dec.shape[1])
    errors, gradients = W_dec.new_empty(n_rows, len(sizes)), torch.empty_like(entries.values)
    places = tuple(map(_array, (entries.starts, entries.counts, entries.latents, entries.values)))
    outputs = tuple(map(_array, (residuals, errors, gradients)))
    targets = _array(batch.targets.contiguous())
    run(
        loops["reconstruct"],
        n_rows,
        *places,
        _array(W_dec),
        _array(p["b_dec"]),
        targets,
        _array(ends),
        real(factor),
        *outputs,
    )
    # Rows that give a latent some entries on average.
    assert batch.recipe.k is not None  # these loops are for selected latents
    block = max(_SMALLEST_BLOCK, _ENTRIES_PER_BLOCK * n_latents // max(1, batch.recipe.k))
    buckets = torch.empty(-(-n_rows // block) * n_latents + 1, dtype=torch.int64)
    rows = torch.empty_like(entries.latents)
    by_latent = torch.empty_like(gradients), torch.empty_like(gradients), W_dec.new_empty(n_latents)
    loops["sort_by_latent"](*places, outputs[2], block, *map(_array, (buckets, rows, *by_latent)))
    fired = buckets.diff().view(-1, n_latents).any(dim=0)
    return Pass(entries, residuals, errors, fired, centred, buckets, rows, *by_latent, tuple(ends.tolist()), factor)


@torch.no_grad()
def add_gradients(seen: Pass, batch: LossInputs) -> None:
    """Add the gradients of the reconstruction's loss to those at the parameters."""
    p = batch.parameters
    W_enc, W_dec = p["W_enc"].detach(), p["W_dec"].detach()
    loops, real = kernels(W_dec.dtype), _scalar(W_dec.dtype)
    buckets, rows = _array(seen.buckets), _array(seen.rows)
    of_decoder, of_encoder = torch.empty_like(W_dec), W_enc.new_empty(W_enc.shape[1], W_enc.shape[0])
    values, begin = _array(seen.sorted_values), 0
    for residual, end in zip(seen.residuals, seen.ends, strict=True):
        group = _array(of_decoder[begin:end])
        sums = (begin, len(W_dec), buckets, rows, values, _array(residual), real(seen.factor), group)
        run(loops["sum_by_latent"], end - begin, *sums)
        begin = end
    gradients = _array(seen.sorted_gradients)
    sums = (0, len(W_dec), buckets, rows, gradients, _array(seen.centred), real(1), _array(of_encoder))
    run(loops["sum_by_latent"], len(of_encoder), *sums)
    of_centre, n_rows = W_dec.new_empty(W_dec.shape[1]), len(batch.rows)
    sums = (seen.residuals[0], torch.arange(n_rows, dtype=torch.int32), W_dec.new_ones(n_rows), of_centre)
    run(loops["column_sums"], -(-len(of_centre) // COLUMNS), *map(_array, sums))
    of_centre *= seen.factor
    if batch.centre is p["b_dec"]:
        of_centre -= W_enc @ seen.of_bias
    found = {"W_enc": of_encoder.T, "b_enc": seen.of_bias, "W_dec": of_decoder, "b_dec": of_centre}
    for name, gradient in found.items():
        before = p[name].grad
        p[name].grad = gradient if before is None else before.add_(gradient)


@torch.no_grad()
def project(parameters: dict[str, torch.nn.Parameter]) -> Float[Tensor, ""]:
    """Remove the gradient along decoder rows; returns the global norm of what is left."""
    loops, square = kernels(parameters["W_dec"].dtype), 0.0
    for name, parameter in parameters.items():
        assert parameter.grad is not None  # of the backward pass before
        gradient = _rows(parameter.grad)
        squares = gradient.new_empty(len(gradient))
        if name == "W_dec":
            run(loops["project"], len(gradient), *map(_array, (_rows(parameter), gradient, squares)))
        else:
            run(loops["squared_norms"], len(gradient), _array(gradient), _array(squares))
        square += loops["total"](_array(squares))
    return torch.tensor(math.sqrt(square), dtype=parameters["W_dec"].dtype)


@torch.no_grad()
def step(optimizer: Adam, parameters: dict[str, torch.nn.Parameter], lr: float, scale: Float[Tensor, ""]) -> None:
    """`Adam.step`, after which decoder rows have unit norm; gradients are used up."""
    optimizer.steps.add_(1)
    number, (beta1, beta2) = int(optimizer.steps), optimizer.betas
    for name, parameter in parameters.items():
        loops, real = kernels(parameter.dtype), _scalar(parameter.dtype)
        numbers = (
            float(scale),
            1 - beta1,
            beta2,
            1 - beta2,
            lr / (1 - beta1**number),
            math.sqrt(1 - beta2**number),
            EPSILON,
            torch.finfo(parameter.dtype).eps,
        )
        assert parameter.grad is not None  # of the backward pass before
        tables = (parameter, parameter.grad, optimizer.mean[name], optimizer.mean_square[name])
        rows = [_array(_rows(table)) for table in tables]
        run(loops["adam"], len(rows[0]), *rows, tuple(map(real, numbers)), name == "W_dec")
        parameter.grad = None


def _encode(loops: Kernels, batch: LossInputs) -> tuple[Tensor, Tensor]:
    """Rows minus the centre, and their product with the encoder in the format of products."""
    rows, W_enc = batch.rows.contiguous(), batch.parameters["W_enc"].detach()
    centred, rounded = torch.empty_like(rows), batch.dtype == torch.bfloat16
    halves = torch.empty(rows.shape if rounded else (0, 0), dtype=torch.int16)
    run(loops["centre"], len(rows), *map(_array, (rows, batch.centre, centred, halves)))
    left = halves.view(torch.bfloat16) if rounded else centred.to(batch.dtype)
    return centred, left @ W_enc.to(batch.dtype)


def _select(loops: Kernels, product: Tensor, batch: LossInputs, architecture: Architecture) -> Entries:
    bias, k = batch.parameters["b_enc"].detach(), batch.recipe.k
    n_rows = len(product)
    assert k is not None  # these loops are for selected latents
    if architecture.select is select_batch:
        return _select_of_batch(loops, product, bias, k)
    latents, values = torch.empty(n_rows * k, dtype=torch.int32), bias.new_empty(n_rows * k)
    counts, keys = torch.empty(n_rows, dtype=torch.int32), _empty_keys(bias)
    run(loops["select_rows"], n_rows, _bits(product), _array(bias), keys, k, *map(_array, (latents, values, counts)))
    return Entries(k * torch.arange(n_rows), counts, latents, values)


def _select_of_batch(loops: Kernels, product: Tensor, bias: Tensor, k: int) -> Entries:
    n_rows, n_latents = product.shape
    wanted = k * n_rows
    latents, values = torch.empty(n_rows, n_latents, dtype=torch.int32), bias.new_empty(n_rows, n_latents)
    counts, bits = torch.empty(n_rows, dtype=torch.int32), values.view(_KEYS[bias.dtype])
    for floor in sorted({max(1, _guessed_floor(product, bias, wanted)), 1}, reverse=True):
        found = (_bits(product), _array(bias), _empty_keys(bias), k, floor, *map(_array, (latents, values, counts)))
        run(loops["reach_floor"], n_rows, *found)
        n_found = int(counts.sum())
        if n_found >= wanted:  # else the guess was too high
            break
    keys, n_kept = bits.new_empty(n_found + LANES), min(n_found, wanted)
    kept_latents, kept_values = torch.empty(n_kept, dtype=torch.int32), bias.new_empty(n_kept)
    loops["select_batch"](
        *map(_array, (latents, bits, counts, keys)), wanted, *map(_array, (kept_latents, kept_values))
    )
    return Entries(counts.cumsum(0) - counts, counts, kept_latents, kept_values)


def _guessed_floor(product: Tensor, bias: Tensor, wanted: int) -> int:
    """The bits of a value that clearly more than `wanted` pre-activations exceed."""
    n = product.numel()
    places = torch.arange(0, n, sample_stride(n))
    sample = product.view(-1)[places].to(bias.dtype) + bias[places % len(bias)]
    return int(bias.new_tensor(floor_of_sample(sample, n, wanted)).view(_KEYS[bias.dtype]).item())


def _empty_keys(like: Tensor) -> np.ndarray:
    return _array(torch.empty(0, dtype=_KEYS[like.dtype]))


def _bits(product: Tensor) -> np.ndarray:
    """A product as the loops read it; NumPy has no bfloat16."""
    return _array(product.view(torch.int16) if product.dtype == torch.bfloat16 else product)


def _rows(tensor: Tensor) -> Tensor:
    """The same memory as rows without gaps."""
    rows = in_memory_order(tensor.detach())
    return rows if rows.ndim == 2 else rows.view(1, -1)


def _array(tensor: Tensor) -> np.ndarray:
    """The same memory for NumPy."""
    return tensor.detach().numpy()


def _scalar(dtype: torch.dtype) -> type:
    return {torch.float32: np.float32, torch.float64: np.float64}[dtype]
