"""How an SAE is trained."""

from typing import Literal

from pydantic import Field, model_validator

from atlas.config.base import Section

# Architectures whose encoder needs nothing of the decoder, so that input and target may be different hooks.
TRANSCODERS = ("topk", "batch_topk")


class Recipe(Section):
    """Every setting that changes a trained SAE, apart from its data and seed."""

    architecture: Literal["topk", "batch_topk", "relu"] = Field(description="Sparsity mechanism.")
    n_latents: int = Field(ge=2, description="Size of the dictionary, F.")
    k: int | None = Field(default=None, ge=1, description="Target L0 of topk and batch_topk.")
    l1_coefficient: float | None = Field(default=None, gt=0, description="Weight of the L1 penalty of relu.")
    l1_warmup_steps: int = Field(default=0, ge=0, description="Steps over which the penalty grows from 0.")
    steps: int = Field(ge=1, description="Updates.")
    batch_size: int = Field(default=2048, ge=1, description="Rows of one update.")
    lr: float | None = Field(default=None, gt=0, description="Learning rate of Adam; null: 2e-4 / sqrt(F / 2^14).")
    warmup_steps: int = Field(default=1000, ge=0, description="Linear warm-up; the first update has learning rate 0.")
    decay_start: int | None = Field(default=None, ge=0, description="Step from which the rate falls linearly to 0.")
    aux_coefficient: float = Field(default=1 / 32, ge=0, description="Weight of the loss that revives dead latents.")
    dead_feature_tokens: int = Field(
        default=10_000_000, ge=1, description="A latent that fired on none of this many last tokens is dead to AuxK."
    )
    threshold_beta: float = Field(default=0.999, ge=0, lt=1, description="Memory of batch_topk's inference threshold.")
    threshold_start_step: int = Field(default=1000, ge=0, description="Step after which the threshold adapts.")
    normalise_activations: bool = Field(
        default=True,
        description="Scale rows to unit root-mean-square norm while training; folded into the saved weights.",
    )
    exclude_massive: bool = Field(default=True, description="Leave out rows with a norm above 10 x the hook's median.")
    matmul_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of products; master weights are always float32. 'auto' asks the device.",
    )
    parity: bool = Field(
        default=False, description="Reproduce dictionary_learning's update exactly, including what ours does better."
    )
    monitor_every: int = Field(default=100, ge=1, description="Steps between looks at held-out and OOS rows.")
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between checkpoints.")

    @model_validator(mode="after")
    def _sparsity(self):
        if self.architecture == "relu":
            if self.l1_coefficient is None or self.k is not None:
                raise ValueError("architecture relu needs l1_coefficient and takes no k")
        else:
            if self.k is None or self.l1_coefficient is not None:
                raise ValueError(f"architecture {self.architecture} needs k and takes no l1_coefficient")
            if self.k >= self.n_latents:
                raise ValueError(f"k is {self.k}: must be below n_latents, which is {self.n_latents}")
        if self.architecture == "batch_topk" and self.threshold_start_step >= self.steps:
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
