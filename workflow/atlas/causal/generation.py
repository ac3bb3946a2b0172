"""Generate text greedily under an intervention, with or without a cache of keys and values."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from atlas.causal.interventions import Intervention, intervened, intervened_logits, require_finite
from atlas.errors import CausalError
from atlas.models.forward import logits, require_positions
from atlas.models.load import LoadedModel


@torch.inference_mode()
def generate(
    loaded: LoadedModel,
    prompts: Int[Tensor, "contexts position"],
    n_tokens: int,
    intervention: Intervention | None = None,
    cache: bool = True,
) -> Int[Tensor, "contexts n_tokens"]:
    """The `n_tokens` most probable next tokens, one after the other, under a change; None: of the unchanged model.

    Prompts are equally long, without padding. Of equally probable tokens the one with the lowest id is taken. The cache
    changes the speed alone. Raises CausalError for a model that does not predict the next token, and when the change
    makes the model overflow; AtlasError when prompt and new tokens are longer than the model's context.
    """
    if loaded.objective != "causal_lm":
        raise CausalError(
            f"{loaded.identity['name']} has objective {loaded.objective!r}: only a causal_lm generates text"
        )
    length = prompts.shape[1]
    if length == 0:
        raise CausalError("a prompt has no tokens: give it at least one")
    require_positions(loaded, length + n_tokens)
    tokens = prompts
    kept = DynamicCache(config=loaded.model.config) if cache else None
    with intervened(loaded, intervention) as begin:
        for _ in range(n_tokens):
            known = 0 if kept is None or tokens.shape[1] == length else tokens.shape[1] - 1
            begin(known)
            hidden = loaded.base(input_ids=tokens[:, known:], use_cache=cache, past_key_values=kept).last_hidden_state[
                :, -1
            ]
            scores = require_finite(logits(loaded, hidden), intervention)
            tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
    return tokens[:, length:]


@torch.inference_mode()
def kl_to_clean(
    loaded: LoadedModel, tokens: Int[Tensor, "contexts position"], first: int, intervention: Intervention
) -> Float[Tensor, " contexts"]:
    """Mean KL(clean ‖ changed) in nats of the predictions of tokens `first` and later, given the same text."""
    places = slice(first - 1, tokens.shape[1] - 1)
    clean, changed = (
        intervened_logits(loaded, tokens, each)[:, places].float().log_softmax(-1) for each in (None, intervention)
    )
    return (clean.exp() * (clean - changed)).sum(-1).clamp(min=0).mean(1)
