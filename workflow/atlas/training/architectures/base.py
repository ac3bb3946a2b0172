"""Interface of an architecture; everything else is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe

Parameters = Mapping[str, Tensor]
Latents = Float[Tensor, "rows n_latents"]


class Weights(Protocol):
    """Parts of a trained SAE that the inference path of an architecture reads; `atlas.training.sae.Sae` has them."""

    @property
    def k(self) -> int | None:
        """Latents that a row keeps, where the architecture fixes their number."""
        ...

    @property
    def threshold(self) -> float | None:
        """Least pre-activation that passes, where one number holds for all latents."""
        ...

    @property
    def b_enc(self) -> Float[Tensor, " n_latents"]:
        """Bias of the encoder."""
        ...

    @property
    def latent_parameters(self) -> Mapping[str, Float[Tensor, " n_latents"]]:
        """Further numbers per latent, by name."""
        ...


@dataclass(frozen=True)
class LossInputs:
    """Input of the forward pass and the loss of one update: normalised float32 rows, and the settings.

    `targets` are what is reconstructed: the rows, but for a transcoder. `centre` is what the encoder subtracts from the
    rows, `dtype` the format of dense products.
    """

    rows: Float[Tensor, "batch d_model"]
    targets: Float[Tensor, "batch d_target"]
    centre: Float[Tensor, " d_model"]
    parameters: Parameters
    recipe: Recipe
    step: int
    dtype: torch.dtype

    def warmed_up(self) -> float:
        """The share of a sparsity penalty that holds at this step; grows from 0 over `sparsity_warmup_steps`."""
        steps = self.recipe.sparsity_warmup_steps
        return min(self.step / steps, 1.0) if steps else 1.0


@dataclass(frozen=True)
class Encoded:
    """Latents of a batch, none negative, and the pre-activations they came from, both dense and with gradients."""

    latents: Float[Tensor, "batch n_latents"]
    pre: Float[Tensor, "batch n_latents"]


@dataclass(frozen=True)
class LatentParameter:
    """A number per latent that only some architectures have.

    `initial` is its value for rows of unit norm; `scales` says that it is in the units of the rows.
    """

    initial: float
    scales: bool


@dataclass(frozen=True)
class Architecture:
    """A sparsity mechanism.

    Either `select(pre, k)` gives the flat indices of the positive pre-activations that training keeps, row by row, and
    only those are computed with where that is faster; or `encode(batch)` gives dense latents.
    `activate(pre, sae)` is the inference path, from ``(rows - b_dec) @ W_enc + b_enc``.
    `penalty(encoded, batch)` is added to the loss of an architecture with `encode`.
    `groups(recipe)` are sizes of groups of latents; the loss is then the mean of the errors of the reconstructions
    from the first group, the first two, and so on.
    `latent_parameters` are what is trained besides W_enc, b_enc, W_dec and b_dec; `restrict(parameters)` brings
    parameters back to where they may be after an update, in place.
    With `has_threshold` training tracks one threshold for inference; with `revives` the auxiliary loss applies.
    `saelens` is the name under which SAELens computes the same inference path (None: it has none),
    `saelens_transcoder` that of a transcoder (None: this mechanism trains none), `saelens_names` what it calls
    parameters that it calls otherwise.
    """

    name: str
    saelens: str | None
    activate: Callable[[Latents, Weights], Latents]
    select: Callable[[Latents, int], Int[Tensor, " kept"]] | None = None
    encode: Callable[[LossInputs], Encoded] | None = None
    penalty: Callable[[Encoded, LossInputs], Float[Tensor, ""]] | None = None
    groups: Callable[[Recipe], tuple[int, ...]] | None = None
    latent_parameters: Mapping[str, LatentParameter] = field(default_factory=dict)
    restrict: Callable[[Parameters], None] | None = None
    has_threshold: bool = False
    revives: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    saelens_transcoder: str | None = None
    saelens_names: Mapping[str, str] = field(default_factory=dict)
