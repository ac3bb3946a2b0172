"""Compare predictions of changed states of one position with the clean state's; logits in small chunks."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlas.models.adapters import apply_head
from atlas.models.load import LoadedModel

# Float32 elements of the logits that are held at a time: 16 MiB.
_ELEMENTS = 2**22

Lift = Callable[[slice, Float[Tensor, "units changes vocabulary"]], None]


@torch.inference_mode()
def compare_states(
    loaded: LoadedModel,
    clean: Float[Tensor, "units d_model"],
    changed: Float[Tensor, "units changes d_model"],
    targets: Int[Tensor, " units"],
    lift: Lift | None = None,
) -> tuple[Float[Tensor, "units changes"], Float[Tensor, "units changes"]]:
    """KL(clean ‖ changed) of each prediction, and by how much its loss grows, in nats, float32.

    `lift` is told of each chunk of units what each logit loses by the change, less the mean over the vocabulary: a
    constant added to all logits changes no prediction. A state that is not finite gives NaN, never a number.
    """
    divergence, loss = (torch.empty(changed.shape[:2], device=clean.device) for _ in range(2))
    step = max(1, _ELEMENTS // ((changed.shape[1] + 1) * loaded.identity["vocabulary_size"]))
    for first in range(0, len(clean), step):
        units = slice(first, first + step)
        states = torch.cat([clean[units, None], changed[units]], dim=1).to(loaded.dtype)
        logits = apply_head(loaded.model, loaded.adapter, loaded.objective, states).float()
        if lift is not None:
            lost = logits[:, :1] - logits[:, 1:]
            lift(units, lost.sub_(lost.mean(-1, keepdim=True)))
        logs = logits.log_softmax(-1)
        del logits
        own = logs[:, :1]
        at_target = logs.gather(2, targets[units, None, None].expand(-1, logs.shape[1], 1))[..., 0]
        loss[units] = at_target[:, :1] - at_target[:, 1:]
        divergence[units] = (own.exp() * (own - logs[:, 1:])).sum(-1).clamp(min=0)  # rounding can leave −1e-8
    return divergence, loss
