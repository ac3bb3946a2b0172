"""Checks of the tensors of a release, before anything is computed with them."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from atlas.errors import ReadingError
from atlas.published.files import Release, as_float32
from atlas.training.sae import Sae

# Rows of a matrix that are held in float64 at a time: a dictionary of 131,072 latents would not fit twice.
_SLICE = 8192


class PublishedTensors:
    """Tensors by name, each taken once; what is missing or left over is an error that lists what the file holds."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]):
        self.path, self._tensors = path, dict(tensors)
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, shape: tuple[int | None, ...] | None = None) -> Tensor:
        """A finite tensor in float32. `shape` is what it must be; None in it is any size above 0."""
        if name not in self._tensors:
            raise ReadingError(f"{self.path}: has no tensor {name}, it holds {', '.join(sorted(self._tensors))}")
        self._taken.add(name)
        tensor = as_float32(self.path, name, self._tensors[name])
        found = tuple(tensor.shape)
        if shape is not None and (
            len(found) != len(shape) or any(want not in (None, size) for want, size in zip(shape, found, strict=True))
        ):
            wanted = tuple("any" if size is None else size for size in shape)
            raise ReadingError(f"{self.path}: {name} has shape {found}, expected {wanted}".replace("'", ""))
        if tensor.numel() == 0:
            raise ReadingError(f"{self.path}: {name} has shape {found}, expected at least one value")
        if not bool(tensor.isfinite().all()):
            first = (~tensor.isfinite()).nonzero()[0].tolist()
            value = tensor[tuple(first)].item()
            raise ReadingError(f"{self.path}: {name}{first} is {value}, expected finite numbers; get the file again")
        return tensor

    def number(self, name: str) -> float:
        """A tensor of one value."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.numel() != 1:
            what = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise ReadingError(f"{self.path}: {name} is {what}, expected one number")
        self._taken.add(name)
        return float(tensor.item())

    def whole_numbers(self, name: str) -> list[int]:
        """A tensor of whole numbers."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.is_floating_point() or tensor.ndim != 1:
            what = "missing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise ReadingError(f"{self.path}: {name} is {what}, expected a row of whole numbers")
        self._taken.add(name)
        return [int(value) for value in tensor]

    def dtype(self, name: str) -> torch.dtype:
        """The format in which a tensor is stored."""
        return self._tensors[name].dtype

    def names(self) -> list[str]:
        """Names of all tensors."""
        return sorted(self._tensors)

    def require_all_taken(self, besides: Collection[str] = ()) -> None:
        """Raise ReadingError for a tensor that no rule of the format reads; `besides` change nothing."""
        if left := sorted(set(self._tensors) - self._taken - set(besides)):
            raise ReadingError(
                f"{self.path}: holds {', '.join(left)}, which an SAE of this architecture does not have; "
                f"expected {', '.join(sorted(self._taken))}"
            )


def require_thresholds(path: Path, name: str, thresholds: Tensor) -> Tensor:
    """Raise ReadingError for a threshold below 0 where no ReLU follows: negative latents would pass."""
    if bool((thresholds < 0).any()):
        first = int((thresholds < 0).nonzero()[0])
        raise ReadingError(
            f"{path}: {name}[{first}] is {thresholds[first].item():g}, expected 0 or more: in this format latents "
            "below 0 would pass it, which no table here defines"
        )
    return thresholds


def require_size(path: Path, key: str, value: int | None, found: int) -> None:
    """Raise ReadingError when a configuration says another width than the tensors have."""
    if value is not None and value != found:
        raise ReadingError(f"{path}: {key} is {value}, but the tensors have {found}")


def require_k(path: Path, k: int, n_latents: int) -> int:
    """Raise ReadingError for a k that no row can have."""
    if not 1 <= k <= n_latents:
        raise ReadingError(f"{path}: k is {k}, expected 1 to {n_latents}, the number of latents")
    return k


def require_decoder(release: Release, path: Path, sae: Sae) -> None:
    """Raise ReadingError for a decoder row of zeros: its latent would fire and change nothing.

    ``zero_decoder_rows: accept`` in what is stated keeps such latents.
    """
    accepted = release.stated.take("zero_decoder_rows")
    if accepted not in (None, "accept"):
        raise ReadingError(f"zero_decoder_rows is stated as {accepted!r}, expected 'accept', or leave it out")
    zero = (sae.W_dec == 0).all(dim=1).nonzero().squeeze(1)
    if len(zero) and accepted is None:
        raise ReadingError(
            f"{path}: {len(zero)} of {sae.n_latents} decoder rows are zero, the first is latent {int(zero[0])}; "
            "expected none; state zero_decoder_rows: accept if the release means them"
        )


def scaled(sae: Sae, scale: float, output_scale: float | None = None) -> Sae:
    """Fold `scale` into an SAE that was made for rows times `scale`; its latents stay the same.

    The result reads rows as they are. Its reconstruction is divided by `output_scale`, for an SAE the same number.
    """
    output_scale = scale if output_scale is None else output_scale
    if scale == 1 and output_scale == 1:
        return sae
    if sae.W_skip is not None:
        raise ReadingError("rows of an SAE with W_skip are scaled, which no format here defines; expected no scale")
    b_dec = (sae.b_dec.double() / output_scale).float()
    return replace(sae, W_enc=_times(sae.W_enc, scale), W_dec=_times(sae.W_dec, 1 / output_scale), b_dec=b_dec)


def _times(matrix: Tensor, factor: float | Tensor) -> Tensor:
    """A matrix times a number, or a number per row or column; one rounding, and float64 for a slice at a time."""
    product = torch.empty_like(matrix)
    for start in range(0, len(matrix), _SLICE):
        rows = slice(start, start + _SLICE)
        part = factor
        if isinstance(factor, Tensor) and factor.shape[0] == len(matrix) and factor.ndim == 2:  # a number per row
            part = factor[rows]
        product[rows] = (matrix[rows].double() * part).float()
    return product


def unit_rows(path: Path, sae: Sae) -> Sae:
    """The SAE with decoder rows of norm 1, its latents multiplied by the norms that they had."""
    norms = row_norms(sae.W_dec)
    if bool((norms == 0).any()):
        first = int((norms == 0).nonzero()[0])
        raise ReadingError(f"{path}: decoder row {first} is zero, which cannot be brought to norm 1")
    return replace(
        sae,
        W_enc=_times(sae.W_enc, norms),
        b_enc=(sae.b_enc.double() * norms).float(),
        W_dec=_times(sae.W_dec, 1 / norms[:, None]),
    )


def row_norms(W_dec: Tensor) -> Tensor:
    """Norms of decoder rows, summed in float64."""
    return torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in W_dec.split(_SLICE)])
