"""From gradients to new weights: projection, clipping, Adam, and decoder rows back to unit norm."""

from types import ModuleType
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.training.initialise import row_norms
from atlas.training.parity import conventions
from atlas.training.schedule import lr_at
from atlas.training.state import TrainingState
from atlas.training.twins import keep_near, trained


@torch.no_grad()
def project(state: TrainingState, fused: bool = False) -> Float[Tensor, ""]:
    """Remove the gradient along decoder rows; returns the global norm of what is left, of the parameters trained."""
    if fused:
        return fused_passes().project(state.parameters)
    parameters = trained(state.parameters)
    if "W_dec" in parameters:
        _remove_parallel_gradient(parameters["W_dec"])
    return torch.nn.utils.get_total_norm([cast(Tensor, value.grad) for value in parameters.values()])


@torch.no_grad()
def apply_gradients(
    state: TrainingState, recipe: Recipe, gradient_norm: Float[Tensor, ""], fused: bool = False
) -> float:
    """Clip the global norm, one step of Adam, decoder rows back to unit norm; returns the learning rate.

    `state` changes in place. Clipping is a factor that Adam applies while it reads the gradients.
    """
    lr, limit = lr_at(recipe, state.step), conventions(recipe).gradient_clip
    scale = (limit / (gradient_norm + 1e-6)).clamp(max=1.0)
    if fused:
        fused_passes().step(state.optimizer, state.parameters, lr, scale)
    else:
        parameters = trained(state.parameters)
        state.optimizer.step(parameters, lr, scale)
        if "W_dec" in parameters:
            W_dec = parameters["W_dec"]
            W_dec.div_(row_norms(W_dec))
            if state.start is not None:
                keep_near(W_dec, state.start, recipe.twin_cosine)
    state.step += 1
    return lr


def fused_passes() -> ModuleType:
    """The module with the compiled way; the compiler is imported by who uses it alone."""
    from atlas.training.fused import passes

    return passes


def _remove_parallel_gradient(W_dec: torch.nn.Parameter) -> None:
    """Take out of each decoder row's gradient what would only change its norm, which is put back to 1 anyway."""
    assert W_dec.grad is not None  # of the backward pass before
    norms = W_dec.norm(dim=1, keepdim=True) + 1e-6
    along = torch.linalg.vecdot(W_dec.grad, W_dec).unsqueeze(1) / norms.square()
    W_dec.grad.addcmul_(along, W_dec, value=-1)
