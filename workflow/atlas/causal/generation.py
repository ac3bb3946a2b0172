"""Generate text greedily under an intervention, with or without a cache of keys and values."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from atlas.causal.interventions import Intervention, intervened, require_finite
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
    return _generated(loaded, prompts, n_tokens, [intervention], cache)[0]


@torch.inference_mode()
def generate_beside_clean(
    loaded: LoadedModel, prompts: Int[Tensor, "contexts position"], n_tokens: int, intervention: Intervention
) -> tuple[Int[Tensor, "contexts n_tokens"], Float[Tensor, " contexts"]]:
    """Return what `generate` gives, and the mean KL(clean ‖ changed) in nats of the predictions of the new tokens.

    The unchanged model reads the same text step by step, so that a change of nothing has a KL of exactly 0.
    """
    return _generated(loaded, prompts, n_tokens, [intervention, None], True)


def _generated(
    loaded: LoadedModel,
    prompts: Int[Tensor, "contexts position"],
    n_tokens: int,
    interventions: Sequence[Intervention | None],
    cache: bool,
) -> tuple[Int[Tensor, "contexts n_tokens"], Float[Tensor, " contexts"]]:
    """New tokens under the first intervention, and the mean KL of its predictions from those under the last."""
    if loaded.objective != "causal_lm":
        raise CausalError(
            f"{loaded.identity['name']} has objective {loaded.objective!r}: only a causal_lm generates text"
        )
    length = prompts.shape[1]
    if length == 0:
        raise CausalError("a prompt has no tokens: give it at least one")
    require_positions(loaded, length + n_tokens)
    tokens = prompts
    caches = [DynamicCache(config=loaded.model.config) if cache else None for _ in interventions]
    divergence = torch.zeros(len(prompts), device=prompts.device)
    for _ in range(n_tokens):
        scores = [_scores(loaded, tokens, length, *each) for each in zip(interventions, caches, strict=True)]
        tokens = torch.cat([tokens, scores[0].argmax(-1, keepdim=True)], dim=1)
        if len(scores) > 1:
            changed, clean = (each.float().log_softmax(-1) for each in scores)
            divergence += (clean.exp() * (clean - changed)).sum(-1).clamp(min=0)
    return tokens[:, length:], divergence / n_tokens


def _scores(
    loaded: LoadedModel, tokens: Tensor, length: int, intervention: Intervention | None, kept: DynamicCache | None
) -> Float[Tensor, "contexts vocabulary"]:
    """Logits of the next token; `length` is that of the prompt, `kept` what the model keeps of earlier tokens."""
    known = 0 if kept is None or tokens.shape[1] == length else tokens.shape[1] - 1
    with intervened(loaded, intervention) as begin:
        begin(known)
        hidden = loaded.base(
            input_ids=tokens[:, known:], use_cache=kept is not None, past_key_values=kept
        ).last_hidden_state[:, -1]
    return require_finite(logits(loaded, hidden), intervention)
