"""Matrix products of training, dense and over the kept latents only.

Weights and gradients are float32 (float64 in tests, where a difference must be none of rounding); `dtype` is the format
in which dense products are computed. The sparse forms do the same sums over the kept entries alone (a few per cent of
all) and are exact in float32; tests hold them to the dense ones. Both leave out the gradient to the rows, which nobody
needs.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from atlas.training import kernels


def pre_activations(
    centred: Float[Tensor, "batch d_model"],
    W_enc: Float[Tensor, "d_model n_latents"],
    b_enc: Float[Tensor, " n_latents"],
    dtype: torch.dtype,
) -> Float[Tensor, "batch n_latents"]:
    """``centred @ W_enc + b_enc`` in the weights' format, the product computed in `dtype`."""
    return (centred.to(dtype) @ W_enc.to(dtype)).to(b_enc.dtype).add_(b_enc)


class Encode(Function):
    """Dense pre-activations of ``rows - b_dec``.

    The gradient of b_dec is taken from the column sums, which saves the product that a generic backward pass
    would make for the gradient of the rows.
    """

    @staticmethod
    def forward(ctx, rows, W_enc, b_enc, b_dec, dtype):
        """Pre-activations, (batch, n_latents) float32."""
        centred = rows - b_dec
        ctx.save_for_backward(centred, W_enc)
        ctx.dtype = dtype
        return pre_activations(centred, W_enc, b_enc, dtype)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of W_enc, b_enc and b_dec."""
        centred, W_enc = ctx.saved_tensors
        dtype, of_bias = ctx.dtype, grad.sum(dim=0)
        of_weight = None
        if ctx.needs_input_grad[1]:  # the encoder of a twin may be frozen
            product = grad.to(dtype).T @ centred.to(dtype)
            of_weight = product.to(W_enc.dtype).T  # laid out as the parameter is: see initialise.py
        return None, of_weight, of_bias, -(W_enc @ of_bias), None


def decode(
    latents: Float[Tensor, "batch n_latents"], W_dec: Float[Tensor, "n_latents d_model"], dtype: torch.dtype
) -> Float[Tensor, "batch d_model"]:
    """``latents @ W_dec`` in the weights' format, the product computed in `dtype`."""
    return (latents.to(dtype) @ W_dec.to(dtype)).to(W_dec.dtype)


@dataclass(frozen=True)
class Kept:
    """The kept entries of a (n_rows, n_latents) matrix by `flat` index: row by row, in any order within a row.

    `dtype` is the format in which CUDA kernels gather the rows they sum; sums are float32.
    """

    flat: Int[Tensor, " kept"]
    n_rows: int
    n_latents: int
    dtype: torch.dtype = torch.float32

    @cached_property
    def rows(self) -> Int[Tensor, " kept"]:
        """Row of each entry."""
        return self.flat.div(self.n_latents, rounding_mode="floor")

    @cached_property
    def latents(self) -> Int[Tensor, " kept"]:
        """Latent of each entry."""
        return self.flat.remainder(self.n_latents)

    @cached_property
    def row_starts(self) -> Int[Tensor, " n_rows"]:
        """Position of each row's first entry."""
        return torch.searchsorted(self.rows, torch.arange(self.n_rows, device=self.flat.device))

    @cached_property
    def by_latent(self) -> tuple[Int[Tensor, " kept"], Int[Tensor, " n_latents"]]:
        """The order that sorts entries by latent, and the position of each latent's first entry in it."""
        order = self.latents.argsort(stable=True)
        starts = torch.searchsorted(self.latents[order], torch.arange(self.n_latents, device=self.flat.device))
        return order, starts

    def sums_by_row(
        self, values: Float[Tensor, " kept"], table: Float[Tensor, "n_latents d_model"]
    ) -> Float[Tensor, "n_rows d_model"]:
        """For each row the sum of value x latent's row of `table` over its entries: the sparse product."""
        return self._segment_sums(table, self.latents, values, self.row_starts)

    def sums_by_latent(
        self, values: Float[Tensor, " kept"], table: Float[Tensor, "n_rows d_model"]
    ) -> Float[Tensor, "n_latents d_model"]:
        """Multiply transposed sparse codes with `table`: sum `value * table[row]` over the entries of each latent."""
        order, starts = self.by_latent
        return self._segment_sums(table, self.rows[order], values[order], starts)

    def products(
        self, by_row: Float[Tensor, "n_rows d_model"], by_latent: Float[Tensor, "n_latents d_model"]
    ) -> Float[Tensor, " kept"]:
        """For each entry the scalar product of its row of `by_row` and its latent's row of `by_latent`."""
        if kernels.available(by_row.device):
            return kernels.sampled_products(by_row.to(self.dtype), by_latent.to(self.dtype), self.rows, self.latents)
        # What embedding_bag computes for its own backward pass; gathering both sides would move 30 times the memory.
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            by_row, by_latent, self.latents, self.row_starts, self.rows, 0, -1
        )

    def _segment_sums(self, table: Tensor, rows: Tensor, values: Tensor, starts: Tensor) -> Tensor:
        if kernels.available(table.device):
            return kernels.segment_sums(table.to(self.dtype), rows, values, starts)
        return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=values)


class EncodeKept(Function):
    """Values of the kept pre-activations, which the caller has already computed; gradients are sparse sums."""

    @staticmethod
    def forward(ctx, centred, W_enc, b_enc, b_dec, values, kept: Kept):
        """The given values, tied to the parameters they came from."""
        ctx.save_for_backward(centred, W_enc)
        ctx.kept = kept
        return values.clone()

    @staticmethod
    def backward(ctx, grad):
        """Gradients of W_enc, b_enc and b_dec."""
        centred, W_enc = ctx.saved_tensors
        kept = ctx.kept
        of_bias = grad.new_zeros(kept.n_latents).index_add_(0, kept.latents, grad)
        of_weight = None
        if ctx.needs_input_grad[1]:  # the encoder of a twin may be frozen
            of_weight = kept.sums_by_latent(grad, centred).T  # laid out as the parameter is: see initialise.py
        return None, of_weight, of_bias, -(W_enc @ of_bias), None, None


class DecodeKept(Function):
    """``latents @ W_dec`` from the kept entries alone."""

    @staticmethod
    def forward(ctx, values, W_dec, kept: Kept):
        """Reconstruction without b_dec, (batch, d_model) float32."""
        ctx.save_for_backward(values, W_dec)
        ctx.kept = kept
        return kept.sums_by_row(values, W_dec)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of the values and W_dec."""
        values, W_dec = ctx.saved_tensors
        kept, grad = ctx.kept, grad.contiguous()
        of_weight = kept.sums_by_latent(values, grad) if ctx.needs_input_grad[1] else None
        return kept.products(grad, W_dec), of_weight, None
