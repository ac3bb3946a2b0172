"""Sparse products on CUDA as Triton kernels; products.py computes the same sums with torch on any device.

Sums run in float32 in a fixed order, so a repeated call gives the same bits. Tables may be float32 or bfloat16: the
products are bound by how fast rows are gathered, and bfloat16 rows are half as long.
"""

import importlib.util
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

if importlib.util.find_spec("triton") is not None:
    import triton  # pyright: ignore[reportMissingImports]  # only torch for CUDA brings it
    import triton.language as tl  # pyright: ignore[reportMissingImports]
else:  # a torch for CPUs comes without it
    triton: Any = None

_ENTRIES, _COLUMNS = 16, 128


def available(device: torch.device) -> bool:
    """Return whether these kernels run on a device: CUDA, with the Triton that torch's CUDA builds bring."""
    return device.type == "cuda" and triton is not None


def segment_sums(
    table: Float[Tensor, "n d"],
    rows: Int[Tensor, " entries"],
    weights: Float[Tensor, " entries"],
    starts: Int[Tensor, " segments"],
) -> Float[Tensor, "segments d"]:
    """For each segment of entries the sum of weight x row of `table`, float32; segment s begins at ``starts[s]``."""
    n_segments, width = len(starts), table.shape[1]
    out = torch.empty(n_segments, width, device=table.device)
    grid = (n_segments, triton.cdiv(width, _COLUMNS))
    _segment_sums[grid](
        out, table, rows, weights, starts, len(rows), n_segments, width, table.stride(0), _ENTRIES, _COLUMNS
    )
    return out


def sampled_products(
    left: Float[Tensor, "n d"],
    right: Float[Tensor, "m d"],
    left_rows: Int[Tensor, " entries"],
    right_rows: Int[Tensor, " entries"],
) -> Float[Tensor, " entries"]:
    """For each entry the scalar product of a row of `left` and a row of `right`, float32."""
    out = torch.empty(len(left_rows), device=left.device)
    if len(left_rows):
        _sampled_products[(triton.cdiv(len(left_rows), _ENTRIES),)](
            out,
            left,
            right,
            left_rows,
            right_rows,
            len(left_rows),
            left.shape[1],
            left.stride(0),
            right.stride(0),
            _ENTRIES,
            _COLUMNS,
        )
    return out


if triton is not None:

    @triton.jit
    def _segment_sums(
        out,
        table,
        rows,
        weights,
        starts,
        n_entries,
        n_segments,
        width,
        stride,
        ENTRIES: tl.constexpr,
        COLUMNS: tl.constexpr,
    ):
        segment = tl.program_id(0)
        columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = columns < width
        first = tl.load(starts + segment)
        last = tl.load(starts + segment + 1, mask=segment + 1 < n_segments, other=n_entries)
        total = tl.zeros((COLUMNS,), dtype=tl.float32)
        for begin in range(first, last, ENTRIES):
            entry = begin + tl.arange(0, ENTRIES)
            present = entry < last
            row = tl.load(rows + entry, mask=present, other=0)
            weight = tl.load(weights + entry, mask=present, other=0.0)
            values = tl.load(
                table + row[:, None] * stride + columns[None, :], mask=present[:, None] & inside[None, :], other=0.0
            )
            total += tl.sum(weight[:, None] * values.to(tl.float32), axis=0)
        tl.store(out + segment.to(tl.int64) * width + columns, total, mask=inside)

    @triton.jit
    def _sampled_products(
        out,
        left,
        right,
        left_rows,
        right_rows,
        n_entries,
        width,
        left_stride,
        right_stride,
        ENTRIES: tl.constexpr,
        COLUMNS: tl.constexpr,
    ):
        entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
        present = entry < n_entries
        of_left = tl.load(left_rows + entry, mask=present, other=0)[:, None] * left_stride
        of_right = tl.load(right_rows + entry, mask=present, other=0)[:, None] * right_stride
        total = tl.zeros((ENTRIES,), dtype=tl.float32)
        for begin in range(0, width, COLUMNS):
            columns = begin + tl.arange(0, COLUMNS)[None, :]
            inside = present[:, None] & (columns < width)
            a = tl.load(left + of_left + columns, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(right + of_right + columns, mask=inside, other=0.0).to(tl.float32)
            total += tl.sum(a * b, axis=1)
        tl.store(out + entry, total, mask=present)
