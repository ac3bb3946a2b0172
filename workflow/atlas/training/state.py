"""State that changes while an SAE is trained."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.devices import DTYPES, fast_matmul_dtype
from atlas.errors import TrainingError
from atlas.training import kernels
from atlas.training.adam import Adam
from atlas.training.architectures import ARCHITECTURES
from atlas.training.initialise import (
    copied_weights,
    encoder_as_drawn,
    geometric_median,
    initial_transcoder,
    initial_weights,
)
from atlas.training.parity import conventions
from atlas.training.sae import Sae
from atlas.training.twins import decoder_start, freeze

# Sparse products are faster than dense ones up to about this share of kept latents. CPU: measured, 2 cores, bfloat16.
# CUDA: from an H100's memory bandwidth and bfloat16 rate (docs/performance.md); not measured.
_SPARSE_SHARE = {"cpu": 1 / 8, "cuda": 1 / 256}


@dataclass
class TrainingState:
    """Float32 master weights for normalised rows, Adam's moments, the threshold, and the counters of dead latents.

    `step` is the number of updates made; `threshold` is -1 until it is first set; `tokens_since_fired` counts rows
    since each latent last had a positive kept value. `start` is the decoder before training, where a twin is held to
    it.
    """

    parameters: dict[str, torch.nn.Parameter]
    optimizer: Adam
    threshold: Float[Tensor, ""]
    tokens_since_fired: Int[Tensor, " n_latents"]
    step: int = 0
    start: Float[Tensor, "n_latents d_model"] | None = None


@dataclass(frozen=True)
class Numerics:
    """Choice of how products are computed: the number format, and all latents or the kept ones only.

    `fused` computes with the kept ones in compiled loops, and the optimiser too.
    """

    dtype: torch.dtype
    sparse: bool
    fused: bool = False

    @classmethod
    def named(cls, dtype: torch.dtype, products: str) -> "Numerics":
        """The way with this name."""
        return cls(dtype, sparse=products != "dense", fused=products == "fused")

    @property
    def products(self) -> str:
        """The way by its name in recipes and on run cards."""
        return "fused" if self.fused else "sparse" if self.sparse else "dense"


@dataclass(frozen=True)
class Choice:
    """The name of a way to compute, who chose it (`recipe`, `shape` or `measurement`), and milliseconds of an update
    in each way, if they were measured.
    """

    products: str
    by: str
    milliseconds: dict[str, float] = field(default_factory=dict)


def is_unfused_twin(recipe: Recipe) -> bool:
    """Return whether the recipe asks for fused kernels, which update every weight, for a twin that keeps some."""
    return recipe.twin is not None and recipe.products == "fused"


def choose_numerics(recipe: Recipe, device: torch.device) -> Numerics:
    """The way that the recipe names, or by its shape alone the one that should be fastest.

    `parity` computes in float32 unless the recipe says otherwise. `choice.choose` measures where that may tell more.
    Raises TrainingError when the device has no kernels for the way that is named.
    """
    if recipe.matmul_dtype != "auto":
        dtype = DTYPES[recipe.matmul_dtype]
    else:
        dtype = torch.float32 if recipe.parity else fast_matmul_dtype(device)
    sparse_runs = device.type == "cpu" or kernels.available(device)
    if recipe.products == "auto" or is_unfused_twin(recipe):
        few = recipe.k is not None and recipe.k <= _SPARSE_SHARE[device.type] * recipe.n_latents
        return Numerics(dtype, sparse=few and sparse_runs)
    runs = {"dense": True, "sparse": sparse_runs, "fused": device.type == "cpu"}[recipe.products]
    if not runs:
        needs = "a CPU" if recipe.products == "fused" else "a CPU, or Triton beside torch"
        raise TrainingError(
            f"products is {recipe.products}, which needs {needs}, and this job runs on {device.type}; set products to "
            "auto, or run on the CPU with '--resources gpu=0'"
        )
    return Numerics.named(dtype, recipe.products)


def new_state(
    recipe: Recipe, d_model: int, seed: int, device: torch.device, d_target: int | None = None
) -> TrainingState:
    """The state before the first update, of a transcoder if a `d_target` is given; `set_decoder_bias` completes it from
    the first batch.
    """
    architecture = ARCHITECTURES[recipe.architecture]
    if d_target is None:
        weights = _start(recipe, d_model, seed)
    else:
        weights = initial_transcoder(d_model, d_target, recipe.n_latents, seed)
    for name, parameter in architecture.latent_parameters.items():
        weights[name] = torch.full((recipe.n_latents,), parameter.initial)
    parameters = {name: torch.nn.Parameter(value.to(device)) for name, value in weights.items()}
    freeze(parameters, recipe)
    return TrainingState(
        parameters=parameters,
        optimizer=Adam.of(parameters, architecture.betas),
        threshold=torch.tensor(-1.0, device=device),
        tokens_since_fired=torch.zeros(recipe.n_latents, dtype=torch.long, device=device),
        start=decoder_start(parameters, recipe),
    )


def _start(recipe: Recipe, d_model: int, seed: int) -> dict[str, Tensor]:
    start = conventions(recipe).start
    if start == "encoder as drawn":
        return encoder_as_drawn(d_model, recipe.n_latents, seed)
    if recipe.initial_copies:
        return copied_weights(d_model, recipe.n_latents, recipe.initial_copies, seed)
    weights = initial_weights(d_model, recipe.n_latents, seed)
    return {name: 0.1 * value for name, value in weights.items()} if start == "short" else weights


@torch.no_grad()
def set_decoder_bias(state: TrainingState, rows: Float[Tensor, "batch d_model"], recipe: Recipe) -> None:
    """Let b_dec start from the first batch, in place: its geometric median, or what the reference starts from."""
    start = conventions(recipe).bias_start
    if start != "zero":
        state.parameters["b_dec"].copy_(geometric_median(rows) if start == "median" else rows.mean(dim=0))


def folded_sae(state: TrainingState, recipe: Recipe, scale: float) -> Sae:
    """The SAE for rows as stored: rows were divided by `scale` in training, so biases and thresholds are multiplied.

    Weights stay as they are, decoder rows unit norm: latents and reconstructions grow with the rows. An encoder that
    was trained on rows with b_dec still in them gets it into its bias, for inference always subtracts it.
    """
    architecture = ARCHITECTURES[recipe.architecture]
    weights: dict[str, Any] = {name: value.detach().clone() for name, value in state.parameters.items()}
    if not conventions(recipe).centred:
        weights["b_enc"] += weights["b_dec"] @ weights["W_enc"]
    own = {name: weights.pop(name) for name in architecture.latent_parameters}
    for name, parameter in architecture.latent_parameters.items():
        if parameter.scales:
            own[name] *= scale
    for name in ("b_enc", "b_dec"):
        weights[name] *= scale
    threshold = None
    if architecture.has_threshold and state.threshold >= 0:
        threshold = (state.threshold * scale).item()
    return Sae(recipe.architecture, k=recipe.k, threshold=threshold, latent_parameters=own, **weights)
