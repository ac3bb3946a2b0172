"""Adam over parameters that may lie transposed in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adam import adam

EPSILON = 1e-8


@dataclass(frozen=True)
class Adam:
    """The moments of each parameter by name, laid out in memory as the parameter is, and the number of steps made.

    torch.optim.Adam is the same update, but its fused CPU kernel copies a transposed parameter and its moments to and
    fro at every step, which costs more than the update.
    """

    mean: dict[str, Tensor]
    mean_square: dict[str, Tensor]
    steps: Float[Tensor, ""]
    betas: tuple[float, float] = (0.9, 0.999)

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], betas: tuple[float, float] = (0.9, 0.999)) -> "Adam":
        """Moments of zero for these parameters."""
        device = next(iter(parameters.values())).device
        mean, square = ({name: torch.zeros_like(value) for name, value in parameters.items()} for _ in range(2))
        return cls(mean, square, torch.zeros((), device=device), betas)

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: float, scale: Float[Tensor, ""]) -> None:
        """Update the parameters in place from their gradients times `scale`; gradients are used up."""
        names = list(parameters)
        # Every tensor has a step of its own in this interface.
        steps = [self.steps.clone() for _ in names]
        adam(
            [in_memory_order(parameters[name].detach()) for name in names],
            [in_memory_order(cast(Tensor, parameters[name].grad)) for name in names],
            [in_memory_order(self.mean[name]) for name in names],
            [in_memory_order(self.mean_square[name]) for name in names],
            [],
            steps,
            fused=True,
            grad_scale=(1 / scale).float(),  # no other format is taken
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        self.steps.add_(1)
        for name in names:
            parameters[name].grad = None


def in_memory_order(tensor: Tensor) -> Tensor:
    """The same memory, with its dimensions in the order in which they lie there."""
    return tensor.T if tensor.ndim == 2 and not tensor.is_contiguous() else tensor
