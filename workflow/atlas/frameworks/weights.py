"""Read what a framework trained as an SAE of ours: one evaluation then judges all."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atlas.frameworks.launch import WEIGHTS_FILE, FrameworkError
from atlas.training.sae import Sae

_SHARED = ("W_enc", "b_enc", "W_dec", "b_dec")


def sae_of(folder: Path, architecture: str, k: int, scale: float) -> Sae:
    """The SAE in a runner's folder, for rows as stored: biases and threshold are multiplied by the job's `scale`.

    Raises FrameworkError that names the file when weights are missing, left over, misshapen or not finite.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FrameworkError(f"{path}: missing or not a safetensors file ({error})") from error
    expected = {*_SHARED, *(["threshold"] if architecture == "batch_topk" else [])}
    if set(found) != expected:
        raise FrameworkError(f"{path}: holds {sorted(found)}, expected {sorted(expected)} for {architecture}")
    d_model, n_latents = found["W_enc"].shape
    shapes = {"b_enc": (n_latents,), "W_dec": (n_latents, d_model), "b_dec": (d_model,), "threshold": ()}
    for name, tensor in found.items():
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise FrameworkError(f"{path}: {name} has shape {tuple(tensor.shape)}, expected {shapes[name]}")
        if not bool(tensor.isfinite().all()):
            raise FrameworkError(f"{path}: {name} has values that are not finite; training diverged")
    threshold = found["threshold"].item() * scale if "threshold" in found else None
    if threshold is not None and threshold < 0:
        raise FrameworkError(f"{path}: threshold is {threshold}: it was never set; lower threshold_start_step")
    return Sae(
        architecture,
        W_enc=found["W_enc"],
        b_enc=found["b_enc"] * scale,
        W_dec=found["W_dec"],
        b_dec=found["b_dec"] * scale,
        k=k,
        threshold=threshold,
    )


@torch.no_grad()
def held_out_loss(sae: Sae, rows: Float[Tensor, "rows d_model"], scale: float, batch_size: int) -> float:
    """Mean squared error per row, in units of training (rows divided by `scale`), latents selected as in training.

    BatchTopK selects within batches of `batch_size`, without its threshold; the last rows may be a smaller batch.
    Float32 products, sums in float64.
    """
    assert sae.k is not None  # the frameworks that are compared train TopK and BatchTopK
    total = 0.0
    for part in rows.float().split(batch_size):
        pre = sae.pre_activations(part).relu()
        chosen = pre.view(1, -1) if sae.architecture == "batch_topk" else pre
        largest = chosen.topk(sae.k * chosen.numel() // sae.n_latents // len(chosen), dim=1)
        latents = torch.zeros_like(chosen).scatter_(1, largest.indices, largest.values).view_as(pre)
        error = part - sae.decode(latents)
        total += error.double().square().sum().item()
    return total / len(rows) / scale**2
