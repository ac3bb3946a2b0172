"""Matrix products in bfloat16 on a CPU that has no instructions for it."""

from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional

from atlas.devices import product_dtype


def widen_products(model: nn.Module, device: torch.device) -> bool:
    """Multiply in float32 in all linear layers of a bfloat16 model on such a CPU; true when that was done.

    A layer's weights and inputs stay bfloat16 and are widened for the product alone, whose result is rounded once: what
    bfloat16 instructions do too. torch's own emulation of them took five times as long. The weights are widened
    anew at each call, which costs little beside a product with hundreds of tokens, and keeps the memory what it was.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16]
    if not layers or product_dtype(torch.bfloat16, device) == torch.bfloat16:
        return False
    for layer in layers:
        layer.forward = MethodType(_widened, layer)
    return True


def _widened(layer: nn.Linear, inputs: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.float()
    return functional.linear(inputs.float(), layer.weight.float(), bias).to(inputs.dtype)
