"""Measure how alike two dictionaries are, latent by latent, beside random dictionaries. docs/metrics.md, section 11."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from torch import Tensor

from atlas.stability.matching import Method, largest_cosines, match, matching_method

# Above this cosine a latent counts as shared (arXiv 2501.16615).
SHARED_COSINE = 0.7
# Cosine of a noisy copy to its direction: what counts as found where the true directions are known
# (docs/planted_truth.md).
COPY_COSINE = 0.9
MEASURES = ("pw_mcc", "mmcs", "shared_decoder", "shared_encoder", "shared")


@dataclass(frozen=True)
class Directions:
    """Encoder and decoder direction of each latent, as unit rows."""

    encoder: Float[Tensor, "n_latents d_model"]
    decoder: Float[Tensor, "n_latents d_target"]

    @classmethod
    def of(cls, W_enc: Float[Tensor, "d_model n_latents"], W_dec: Float[Tensor, "n_latents d_target"]) -> "Directions":
        """From weights of any norm; a row of zeros stays zero and has cosine 0 with all others."""
        return cls(*(torch.nn.functional.normalize(rows.float(), dim=1) for rows in (W_enc.T, W_dec)))

    def __len__(self) -> int:
        return len(self.decoder)

    def only(self, latents: Bool[np.ndarray, " n_latents"]) -> "Directions":
        """The latents for which the mask is true."""
        keep = torch.from_numpy(latents).to(self.decoder.device)
        return Directions(self.encoder[keep], self.decoder[keep])


@dataclass(frozen=True)
class Likeness:
    """Per latent of one dictionary: its partner in another, matched by decoder and by encoder, and its cosine to it.

    −1 and NaN where no partner is left for it. `max_cosine` is the largest decoder cosine to any latent of the other.
    """

    partner: Int[np.ndarray, " n_latents"]
    decoder_cosine: Float[np.ndarray, " n_latents"]
    encoder_partner: Int[np.ndarray, " n_latents"]
    encoder_cosine: Float[np.ndarray, " n_latents"]
    max_cosine: Float[np.ndarray, " n_latents"]
    method: Method

    @classmethod
    def between(cls, first: Directions, second: Directions, exact_up_to: int) -> "Likeness":
        """Of the latents of `first` to those of `second`."""
        method = matching_method(len(first), len(second), exact_up_to)
        decoder = match(first.decoder, second.decoder, method)
        same = first.encoder is first.decoder and second.encoder is second.decoder
        encoder = decoder if same else match(first.encoder, second.encoder, method)
        largest = largest_cosines(first.decoder, second.decoder)[0].double().cpu().numpy()
        return cls(decoder.partner, decoder.cosine, encoder.partner, encoder.cosine, largest, method)

    @cached_property
    def shared(self) -> Bool[np.ndarray, " n_latents"]:
        """Return whether both matchings give one partner, and both cosines are above `SHARED_COSINE`."""
        same = (self.partner >= 0) & (self.partner == self.encoder_partner)
        return same & _above(self.decoder_cosine) & _above(self.encoder_cosine)

    def per_latent(self) -> dict[str, Float[np.ndarray, " n_latents"]]:
        """Return what each measure is the mean of; NaN where a latent does not enter it."""
        return {
            "pw_mcc": self.decoder_cosine,
            "mmcs": self.max_cosine,
            "shared_decoder": _above(self.decoder_cosine).astype(float),
            "shared_encoder": _above(self.encoder_cosine).astype(float),
            "shared": self.shared.astype(float),
        }

    def values(self) -> dict[str, float]:
        """Each measure as one number."""
        return {name: float(np.nanmean(latents)) for name, latents in self.per_latent().items()}


def isotropic_nulls(first: Directions, second: Directions, draws: int, exact_up_to: int) -> list[dict[str, float]]:
    """Measures between pairs of random dictionaries of the same two sizes and widths.

    A random latent writes the direction that it reads, as far as the widths allow: that can only raise `shared`.
    """
    values = []
    for draw in range(draws):
        one, other = (_random(like, _generator(side, draw, len(like))) for side, like in enumerate((first, second)))
        values.append(Likeness.between(one, other, exact_up_to).values())
    return values


def spectrum_nulls(first: Directions, second: Directions, draws: int, exact_up_to: int) -> list[dict[str, float]]:
    """Measures between `first` and random dictionaries with the second moments of `second`.

    Dictionaries trained on the same rows crowd into the same subspace and are alike for that alone; this null is too.
    """
    roots = [_root(second.encoder), _root(second.decoder)]
    return [Likeness.between(first, surrogate, exact_up_to).values() for surrogate in _surrogates(second, roots, draws)]


def ceiling(first: Directions, second: Directions, exact_up_to: int) -> dict[str, float]:
    """Measures between two dictionaries that both found the directions of `first`, as many as each has latents.

    Each latent of either has cosine `COPY_COSINE` to its direction, in a direction of error of its own: two of them
    have the cosine `COPY_COSINE` squared, but for chance. Of unequal sizes the larger holds random directions besides.
    """
    one, other = (_noisy(first, side, len(like)) for side, like in enumerate((first, second)))
    return Likeness.between(one, other, exact_up_to).values()


def _noisy(true: Directions, side: int, size: int) -> Directions:
    """`size` latents, the first ones with `COPY_COSINE` to the true directions."""
    generator = _generator(3 + side, 0, size)
    parts = []
    for rows in (true.encoder, true.decoder):
        noise = torch.randn(size, rows.shape[1], generator=generator).to(rows.device)
        known = min(size, len(rows))
        unit, error = rows[:known], noise[:known]
        error = error - (error * unit).sum(1, keepdim=True) * unit
        noise[:known] = COPY_COSINE * unit + (1 - COPY_COSINE**2) ** 0.5 * torch.nn.functional.normalize(error, dim=1)
        parts.append(torch.nn.functional.normalize(noise, dim=1))
    return Directions(*parts)


def _surrogates(like: Directions, roots: list[Tensor], draws: int) -> Iterator[Directions]:
    widths = [len(root) for root in roots]
    for draw in range(draws):
        generator = _generator(2, draw, len(like))
        noise = torch.randn(len(like), max(widths), generator=generator).to(like.decoder.device)
        rows = [noise[:, :width] @ root for width, root in zip(widths, roots, strict=True)]
        yield Directions(*(torch.nn.functional.normalize(part, dim=1) for part in rows))


def _root(rows: Float[Tensor, "n_latents width"]) -> Float[Tensor, "width width"]:
    """Symmetric root of the second moments: standard normal rows times it have the same second moments."""
    moments = (rows.T @ rows).double() / len(rows)
    values, vectors = torch.linalg.eigh(moments)
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).float()


def _random(like: Directions, generator: torch.Generator) -> Directions:
    def draw(width: int) -> Tensor:
        rows = torch.randn(len(like), width, generator=generator)
        return torch.nn.functional.normalize(rows, dim=1).to(like.decoder.device)

    widths = [like.encoder.shape[1], like.decoder.shape[1]]
    if widths[0] == widths[1]:
        rows = draw(widths[0])
        return Directions(rows, rows)
    return Directions(*(draw(width) for width in widths))


def _generator(side: int, draw: int, size: int) -> torch.Generator:
    return torch.Generator().manual_seed(((size * 3 + side) << 16) + draw)


def _above(cosines: np.ndarray) -> np.ndarray:
    return np.nan_to_num(cosines, nan=-1.0) > SHARED_COSINE  # no partner: not shared
