"""From gradients to new weights: projection, clipping, Adam, and decoder rows back to unit norm."""

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.training.initialise import unit_rows
from atlas.training.schedule import lr_at
from atlas.training.state import TrainingState

GRADIENT_CLIP = 1.0


def project_and_clip(state: TrainingState, recipe: Recipe) -> Float[Tensor, ""]:
    """Remove the gradient along decoder rows, clip the rest to a global norm of 1, return the norm before clipping."""
    _remove_parallel_gradient(state.parameters["W_dec"])
    # dictionary_learning clips in every trainer but that of relu.
    limit = float("inf") if recipe.parity and recipe.architecture == "relu" else GRADIENT_CLIP
    return torch.nn.utils.clip_grad_norm_(state.parameters.values(), limit)


def apply_gradients(state: TrainingState, recipe: Recipe) -> float:
    """One step of Adam and the renormalisation of the decoder; `state` changes in place. Returns the learning rate."""
    lr = lr_at(recipe, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.optimizer.zero_grad()
    with torch.no_grad():
        state.parameters["W_dec"].copy_(unit_rows(state.parameters["W_dec"]))
    state.step += 1
    return lr


@torch.no_grad()
def _remove_parallel_gradient(W_dec: torch.nn.Parameter) -> None:
    """Take out of each decoder row's gradient what would only change its norm, which is put back to 1 anyway."""
    unit = W_dec / (W_dec.norm(dim=1, keepdim=True) + 1e-6)
    W_dec.grad -= (W_dec.grad * unit).sum(dim=1, keepdim=True) * unit
