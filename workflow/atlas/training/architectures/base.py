"""What an architecture has to say; everything else is shared."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from atlas.config.recipe import Recipe

Select = Callable[[Float[Tensor, "batch n_latents"], int], Int[Tensor, " kept"]]
Activate = Callable[[Float[Tensor, "rows n_latents"], int | None, float | None], Float[Tensor, "rows n_latents"]]
Penalty = Callable[[Float[Tensor, "..."], int, Recipe, int], Tensor]


@dataclass(frozen=True)
class Architecture:
    """A sparsity mechanism.

    `select(pre, k)` gives the flat, ascending indices of the positive pre-activations that training keeps; None
    means all of them. `activate(pre, k, threshold)` is the inference path. `penalty(latents, n_rows, recipe, step)`
    is added to the loss. `saelens` is the name under which SAELens computes the same inference path. With
    `has_threshold` training tracks the threshold that inference uses; with `revives` the auxiliary loss applies.
    """

    name: str
    saelens: str
    select: Select | None
    activate: Activate
    penalty: Penalty | None = None
    has_threshold: bool = False
    revives: bool = True
