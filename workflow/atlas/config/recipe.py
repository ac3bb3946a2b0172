"""Settings of a training."""

import math
from typing import Any, Literal, get_args

from pydantic import Field, PositiveFloat, model_validator

from atlas.config.base import Section
from atlas.massive import MASSIVE_FACTOR

# Architectures whose encoder needs nothing of the decoder, so that input and target may be different hooks.
TRANSCODERS = ("topk", "batch_topk")
# Which architectures take a setting; the others must leave it at its default.
_TAKEN_BY = {
    "k": ("topk", "batch_topk", "matryoshka_batch_topk"),
    "group_fractions": ("matryoshka_batch_topk",),
    "threshold_beta": ("batch_topk", "matryoshka_batch_topk"),
    "threshold_start_step": ("batch_topk", "matryoshka_batch_topk"),
    "l1_coefficient": ("relu", "gated"),
    "l0_coefficient": ("jumprelu",),
    "target_l0": ("jumprelu",),
    "bandwidth": ("jumprelu",),
    "sparsity_warmup_steps": ("relu", "gated", "jumprelu"),
}
# Trained nulls: docs/twins.md says what each may not learn.
TwinKind = Literal["frozen_decoder", "near_decoder", "frozen_encoder"]
TWINS: tuple[TwinKind, ...] = get_args(TwinKind)
# Which references train an architecture.
_REFERENCES = {
    "dictionary_learning": ("topk", "batch_topk", "matryoshka_batch_topk", "relu", "gated", "jumprelu"),
    "sparsify": ("topk",),
}


def _warmup(given: dict[str, Any]) -> int:
    """A twentieth of the steps; of long trainings the 1,000 of dictionary_learning (trainer.py, 2025)."""
    return min(1000, given.get("steps", 0) // 20)


def _threshold_start(given: dict[str, Any]) -> int:
    """Half of the steps; of long trainings dictionary_learning's 1,000."""
    return min(1000, given.get("steps", 0) // 2)


def _dead_tokens(given: dict[str, Any]) -> int:
    """A tenth of the rows; of long trainings dictionary_learning's 10 million."""
    return max(1, min(10_000_000, given.get("steps", 0) * given.get("batch_size", 0) // 10))


class Recipe(Section):
    """Every setting that changes a trained SAE, apart from its data and seed."""

    architecture: Literal["topk", "batch_topk", "matryoshka_batch_topk", "relu", "gated", "jumprelu"] = Field(
        description="Sparsity mechanism."
    )
    n_latents: int = Field(ge=2, description="Size of the dictionary, F.")
    k: int | None = Field(default=None, ge=1, description="Target L0 of topk, batch_topk and matryoshka_batch_topk.")
    group_fractions: tuple[PositiveFloat, ...] | None = Field(
        default=None,
        min_length=2,
        description="Shares of the latents that form the nested groups of matryoshka_batch_topk; they sum to 1.",
    )
    l1_coefficient: float | None = Field(default=None, gt=0, description="Weight of the L1 penalty of relu and gated.")
    l0_coefficient: float = Field(default=1.0, gt=0, description="Weight of jumprelu's penalty (L0 / target_l0 - 1)^2.")
    target_l0: float | None = Field(default=None, gt=0, description="L0 that jumprelu's penalty pulls towards.")
    bandwidth: float = Field(
        default=0.001, gt=0, description="Distance of two values between which jumprelu's thresholds get a gradient."
    )
    sparsity_warmup_steps: int = Field(
        default=0, ge=0, description="Steps over which the penalty of relu, gated or jumprelu grows from 0."
    )
    steps: int = Field(ge=1, description="Updates.")
    batch_size: int = Field(default=2048, ge=1, description="Rows of one update.")
    max_epochs: float | None = Field(
        default=10.0,
        gt=0,
        description="How often the steps may visit a corpus of the mix before that is an error; null: any number.",
    )
    lr: float | None = Field(default=None, gt=0, description="Learning rate of Adam; null: 2e-4 / sqrt(F / 2^14).")
    warmup_steps: int = Field(
        default_factory=_warmup,
        ge=0,
        description="Linear warm-up; the first update has learning rate 0. Left out: a twentieth of the steps, at most "
        "1,000.",
    )
    decay_start: int | None = Field(default=None, ge=0, description="Step from which the rate falls linearly to 0.")
    aux_coefficient: float = Field(default=1 / 32, ge=0, description="Weight of the loss that revives dead latents.")
    dead_feature_tokens: int = Field(
        default_factory=_dead_tokens,
        ge=1,
        description="A latent that fired on none of this many last tokens is dead to AuxK. Left out: a tenth of "
        "steps x batch_size, at most 10,000,000.",
    )
    initial_copies: int = Field(
        default=0,
        ge=0,
        description="How many latents start as near-copies of others (cosine .9998): a fault on purpose, to see that "
        "it is noticed. At most half of them.",
    )
    threshold_beta: float = Field(default=0.999, ge=0, lt=1, description="Memory of the inference threshold.")
    threshold_start_step: int = Field(
        default_factory=_threshold_start,
        ge=0,
        description="Step after which the threshold adapts. Left out: half of the steps, at most 1,000.",
    )
    normalise_activations: bool = Field(
        default=True,
        description="Scale rows to unit root-mean-square norm while training; folded into the saved weights.",
    )
    exclude_massive: bool = Field(
        default=True,
        description=f"Leave out massive activations: rows whose norm is above {MASSIVE_FACTOR:g} x the median norm of "
        "the counted training rows at a hook that is read.",
    )
    matmul_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of products; master weights are always float32. 'auto' asks the device.",
    )
    products: Literal["auto", "dense", "sparse", "fused"] = Field(
        default="auto",
        description="How products with the latents are computed: over all of them, over the kept ones by torch, or by "
        "kernels compiled for the CPU. 'auto' measures once per machine and shape which is fastest; the last bits of "
        "the weights differ.",
    )
    parity: Literal["dictionary_learning", "sparsify"] | None = Field(
        default=None, description="Reproduce the update of a reference exactly, including what ours does better."
    )
    twin: TwinKind | None = Field(
        default=None,
        description="Train a null on purpose: `frozen_decoder` and `frozen_encoder` keep these weights at their random "
        "start, `near_decoder` keeps each decoder row within `twin_cosine` of its start. null: everything is trained. "
        "A study's `twins` sets it.",
    )
    twin_cosine: float = Field(
        default=0.8, gt=0, lt=1, description="Least cosine of a decoder row of twin `near_decoder` with its start."
    )
    monitor_every: int = Field(default=100, ge=1, description="Steps between looks at held-out and OOS rows.")
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between checkpoints.")

    def sparsity(self) -> dict[str, Any]:
        """The settings of the sparsity mechanism, those that this architecture takes."""
        return {key: getattr(self, key) for key, takers in _TAKEN_BY.items() if self.architecture in takers}

    @model_validator(mode="after")
    def _sparsity(self):
        for key, takers in _TAKEN_BY.items():
            field = type(self).model_fields[key]
            default = field.get_default(call_default_factory=True, validated_data=dict(self.__dict__))
            if self.architecture not in takers and getattr(self, key) != default:
                raise ValueError(f"architecture {self.architecture} takes no {key}; it is for {', '.join(takers)}")
            if self.architecture in takers and getattr(self, key) is None:
                raise ValueError(f"architecture {self.architecture} needs {key}")
        if self.products in ("sparse", "fused") and self.k is None:
            raise ValueError(
                f"products is {self.products}, but architecture {self.architecture} computes all latents; "
                "expected auto or dense"
            )
        if self.parity and self.architecture not in _REFERENCES[self.parity]:
            raise ValueError(
                f"parity is {self.parity}, which has no architecture {self.architecture}; "
                f"expected one of {', '.join(_REFERENCES[self.parity])}"
            )
        return self

    @model_validator(mode="after")
    def _sizes(self):
        for key in ("k", "target_l0"):
            if getattr(self, key) is not None and getattr(self, key) >= self.n_latents:
                raise ValueError(f"{key} is {getattr(self, key)}: must be below n_latents, which is {self.n_latents}")
        if self.group_fractions is not None:
            if not math.isclose(sum(self.group_fractions), 1.0):
                raise ValueError(f"group_fractions is {list(self.group_fractions)}: must sum to 1")
            if any(int(fraction * self.n_latents) < 1 for fraction in self.group_fractions):
                raise ValueError(
                    f"group_fractions is {list(self.group_fractions)}: a group of {self.n_latents} latents is empty"
                )
        return self

    @model_validator(mode="after")
    def _copies(self):
        if self.initial_copies and self.parity:
            raise ValueError(f"initial_copies is {self.initial_copies}: parity with {self.parity} starts as that does")
        if 2 * self.initial_copies > self.n_latents:
            raise ValueError(f"initial_copies is {self.initial_copies}: at most half of n_latents ({self.n_latents})")
        return self

    @model_validator(mode="after")
    def _twin(self):
        if self.twin and self.parity:
            raise ValueError(f"twin is {self.twin}: parity with {self.parity} trains as that does, without twins")
        if self.twin != "near_decoder" and self.twin_cosine != type(self).model_fields["twin_cosine"].default:
            raise ValueError(f"twin_cosine is {self.twin_cosine:g}: only twin near_decoder takes it")
        return self

    @model_validator(mode="after")
    def _schedule(self):
        if self.warmup_steps >= self.steps and self.warmup_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}: must be below steps ({self.steps}), or the learning rate never "
                f"reaches lr; remove the key for the default, {_warmup({'steps': self.steps})}"
            )
        if self.sparsity_warmup_steps >= self.steps:
            raise ValueError(
                f"sparsity_warmup_steps is {self.sparsity_warmup_steps}: must be below steps ({self.steps}), or the "
                "penalty never reaches its weight"
            )
        if self.architecture in _TAKEN_BY["threshold_start_step"] and self.threshold_start_step >= self.steps:
            raise ValueError(
                f"threshold_start_step is {self.threshold_start_step}: must be below steps ({self.steps}), "
                "or the inference threshold is never set"
            )
        if self.decay_start is not None and not self.warmup_steps <= self.decay_start < self.steps:
            raise ValueError(
                f"decay_start is {self.decay_start}: must lie between warmup_steps ({self.warmup_steps}) "
                f"and steps ({self.steps})"
            )
        return self
