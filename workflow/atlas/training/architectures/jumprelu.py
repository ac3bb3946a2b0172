"""JumpReLU: a latent passes where it exceeds a threshold of its own, which is learnt (arXiv 2407.14435).

Neither the step nor its sum, L0, has a useful gradient to the threshold; both get one from the values within
`bandwidth` of it (a rectangle as kernel). The penalty is ``l0_coefficient (L0 / target_l0 - 1)^2``. Source of the
objective: dictionary_learning, jumprelu.py, `JumpReluTrainer`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from atlas.training.architectures.base import Architecture, Encoded, LatentParameter, Latents, LossInputs, Parameters
from atlas.training.products import Encode


class Jump(Function):
    """Values above their latent's threshold, else 0."""

    @staticmethod
    def forward(ctx, pre, thresholds, bandwidth):
        """Latents, (batch, n_latents)."""
        ctx.save_for_backward(pre, thresholds)
        ctx.bandwidth = bandwidth
        return torch.where(pre > thresholds, pre, 0.0)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of the values, as they pass, and of the thresholds."""
        pre, thresholds = ctx.saved_tensors
        near = _near(pre, thresholds, ctx.bandwidth)
        of_thresholds = -(thresholds / ctx.bandwidth) * torch.where(near, grad, 0.0).sum(dim=0)
        return torch.where(pre > thresholds, grad, 0.0), of_thresholds, None


class L0(Function):
    """Mean number of values above their latent's threshold; its gradient goes to the thresholds alone."""

    @staticmethod
    def forward(ctx, pre, thresholds, bandwidth):
        """A scalar."""
        ctx.save_for_backward(pre, thresholds)
        ctx.bandwidth = bandwidth
        return (pre > thresholds).sum() / len(pre)

    @staticmethod
    def backward(ctx, grad):
        """Gradient of the thresholds."""
        pre, thresholds = ctx.saved_tensors
        near = _near(pre, thresholds, ctx.bandwidth).sum(dim=0)
        return None, -grad / (ctx.bandwidth * len(pre)) * near, None


def _near(pre: Latents, thresholds: Float[Tensor, " n_latents"], bandwidth: float) -> Tensor:
    return ((pre - thresholds) / bandwidth).abs() < 0.5


def _activate(pre: Latents, sae) -> Latents:
    return torch.relu(torch.where(pre > sae.latent_parameters["thresholds"], pre, 0.0))


def _encode(batch: LossInputs) -> Encoded:
    p = batch.parameters
    pre = Encode.apply(batch.rows, p["W_enc"], p["b_enc"], batch.centre, batch.dtype)
    return Encoded(Jump.apply(pre, p["thresholds"], batch.recipe.bandwidth), pre)


def _penalty(encoded: Encoded, batch: LossInputs) -> Float[Tensor, ""]:
    recipe = batch.recipe
    # The reference looks at latents after the jump, where values just below a threshold are 0 and no longer near it.
    values = encoded.latents if recipe.parity else encoded.pre
    l0 = L0.apply(values.detach(), batch.parameters["thresholds"], recipe.bandwidth)
    return recipe.l0_coefficient * batch.warmed_up() * (l0 / recipe.target_l0 - 1).square()


@torch.no_grad()
def _restrict(parameters: Parameters) -> None:
    """Below a negative threshold negative values would pass."""
    parameters["thresholds"].clamp_(min=0.0)


JUMPRELU = Architecture(
    name="jumprelu",
    saelens="jumprelu",
    activate=_activate,
    encode=_encode,
    penalty=_penalty,
    latent_parameters={"thresholds": LatentParameter(initial=0.001, scales=True)},  # appendix I of the paper
    restrict=_restrict,
    betas=(0.0, 0.999),
    saelens_names={"thresholds": "threshold"},
)
