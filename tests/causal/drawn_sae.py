"""SAEs and transcoders with drawn weights, for the tiny models of width 32."""

import torch
from test_adapters import every_hook

from atlas.training.architectures import ARCHITECTURES
from atlas.training.sae import Sae

WIDTH, LATENTS = 32, 24


def draw_sae(architecture="relu", seed=0, is_transcoder=False) -> Sae:
    generator = torch.Generator().manual_seed(seed)
    own = {"jumprelu": ["thresholds"], "gated": ["r_mag", "b_mag"]}.get(architecture, [])
    return Sae(
        architecture,
        W_enc=torch.randn(WIDTH, LATENTS, generator=generator) / WIDTH**0.5,
        b_enc=torch.rand(LATENTS, generator=generator),
        W_dec=torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=generator), dim=1),
        b_dec=torch.randn(WIDTH, generator=generator) / 10,
        k=4 if "topk" in architecture else None,
        threshold=0.1 if ARCHITECTURES[architecture].has_threshold else None,
        latent_parameters={name: torch.full((LATENTS,), 0.1) for name in own},
        is_transcoder=is_transcoder,
    )


def hooks_of(loaded) -> list[str]:
    """Every kind of hook that the model has: those of its second block, in a hybrid those of all blocks."""
    hooks = every_hook(loaded)
    return hooks if loaded.model.config.model_type == "nemotron_h" else [hook for hook in hooks if hook.endswith(".1")]
