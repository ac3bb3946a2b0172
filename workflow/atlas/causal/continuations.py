"""Short continuations of a text in which a latent fires, with the latent clamped: what steering by it looks like."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from atlas.causal.firings import MeasuredFirings
from atlas.causal.generation import generate, generate_beside_clean
from atlas.causal.interventions import Change, Intervention
from atlas.config.causal import SHOWN_CLAMPS, Causal
from atlas.errors import CausalError
from atlas.models.load import LoadedModel
from atlas.progress import progress
from atlas.training.sae import Sae

# Contexts of one pass.
_BATCH = 64
COLUMNS = ["latent", "clamp", "prompt", "text", "clean_text", "kl", "reason"]


def continue_texts(
    loaded: LoadedModel,
    sae: Sae,
    hook: str,
    tokens: Int[Tensor, " rows"],
    context_length: int,
    firings: Sequence[MeasuredFirings],
    settings: Causal,
) -> pd.DataFrame:
    """One row per latent and clamp of `SHOWN_CLAMPS`, in multiples of its largest activation.

    The prompt ends at the latent's strongest firing. Where too few tokens of its context come before that, it is the
    context's first tokens. The clamp acts on the prompt's last token and on all new ones. `kl` is the mean
    KL(clean ‖ clamped) of the predictions of the new tokens, given the same text. Latents without a firing have none.
    """
    shown = [each for each in firings if each.n_firings]
    rows: list[dict[str, object]] = []
    with progress(len(shown), f"continuations {hook}", "latent") as done:
        for first in range(0, len(shown), _BATCH):
            batch = shown[first : first + _BATCH]
            prompts = _prompts(tokens, context_length, batch, settings.prompt_tokens).to(loaded.device)
            clean = _texts(loaded, generate(loaded, prompts, settings.continuation_tokens))
            asked = _texts(loaded, prompts)
            for clamp in SHOWN_CLAMPS:
                for each, text, kl, reason, prompt, own in zip(
                    batch, *_clamped(loaded, sae, hook, batch, prompts, clamp, settings), asked, clean, strict=True
                ):
                    row = {"latent": each.latent, "clamp": clamp, "prompt": prompt, "text": text, "clean_text": own}
                    rows.append(row | {"kl": kl, "reason": reason})
            done.update(len(batch))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["latent", "clamp"], ignore_index=True)


def _clamped(
    loaded: LoadedModel,
    sae: Sae,
    hook: str,
    batch: Sequence[MeasuredFirings],
    prompts: Int[Tensor, "contexts position"],
    clamp: float,
    settings: Causal,
) -> tuple[list[str | None], list[float | None], list[str | None]]:
    """Text, KL and, where the model overflows, the reason why there is neither."""
    positions = torch.zeros(prompts.shape, dtype=torch.bool, device=prompts.device)
    positions[:, -1] = True
    change = Change.of("clamp", [each.latent for each in batch], [clamp * each.largest for each in batch])
    steered = Intervention.of(loaded, sae, hook, change, positions)
    try:
        new, kl = generate_beside_clean(loaded, prompts, settings.continuation_tokens, steered)
    except CausalError as error:
        if len(batch) == 1:
            return [None], [None], [str(error)]
        apart = [
            _clamped(loaded, sae, hook, [each], prompts[number : number + 1], clamp, settings)
            for number, each in enumerate(batch)
        ]
        return [own[0][0] for own in apart], [own[1][0] for own in apart], [own[2][0] for own in apart]
    return list(_texts(loaded, new)), kl.tolist(), [None] * len(batch)


def _prompts(
    tokens: Int[Tensor, " rows"], context_length: int, batch: Sequence[MeasuredFirings], n_tokens: int
) -> Int[Tensor, "contexts position"]:
    n_tokens = min(n_tokens, context_length)
    starts = []
    for each in batch:
        begin = each.strongest_row // context_length * context_length
        starts.append(max(begin, each.strongest_row + 1 - n_tokens))
    return torch.stack([tokens[start : start + n_tokens] for start in starts])


def _texts(loaded: LoadedModel, tokens: Int[Tensor, "contexts position"]) -> list[str]:
    return loaded.tokenizer.batch_decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
