"""Normalisations of each row by itself, as SAEs of other projects have them. Ours has one number for all rows."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-5

Rows = Float[Tensor, "rows d_model"]


@dataclass(frozen=True)
class RowScale:
    """`scaled(rows)` is what the encoder reads; `undone(decoded, rows)` is a reconstruction in the scale of the rows.

    `saelens` is the value of SAELens' ``normalize_activations``.
    """

    scaled: Callable[[Rows], Rows]
    undone: Callable[[Rows, Rows], Rows]
    saelens: str


def _layer_norm(rows: Rows) -> Rows:
    centred = rows - rows.mean(dim=1, keepdim=True)
    return centred / (centred.std(dim=1, keepdim=True) + _EPSILON)


def _undo_layer_norm(decoded: Rows, rows: Rows) -> Rows:
    # The way back has no epsilon, as in sae_lens 6.54 (saes/sae.py) and OpenAI's sparse_autoencoder (model.py).
    return decoded * rows.std(dim=1, keepdim=True) + rows.mean(dim=1, keepdim=True)


def _constant_norm(rows: Rows) -> Rows:
    return rows * _coefficient(rows)


def _undo_constant_norm(decoded: Rows, rows: Rows) -> Rows:
    return decoded / _coefficient(rows)


def _coefficient(rows: Rows) -> Float[Tensor, "rows 1"]:
    # A row of zeros gives infinity, and latents that are not numbers, as it does in SAELens.
    return rows.shape[1] ** 0.5 / rows.norm(dim=1, keepdim=True)


ROW_SCALES = {
    "layer_norm": RowScale(_layer_norm, _undo_layer_norm, "layer_norm"),
    "constant_norm": RowScale(_constant_norm, _undo_constant_norm, "constant_norm_rescale"),
}
