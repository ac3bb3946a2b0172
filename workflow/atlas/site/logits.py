"""Tokens whose logits a latent's direction raises and lowers most."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from jaxtyping import Integer as Int

from atlas.models.load import LoadedModel
from atlas.models.token_logits import rows_at_once

N_TOKENS = 10
HISTOGRAM_BINS = 40


@dataclass(frozen=True, eq=False)
class Logits:
    """The most promoted and most suppressed tokens of every latent, strongest first, with their logits.

    `counts` and `edges` are histograms over the whole vocabulary.
    """

    promoted: Int[np.ndarray, "n_latents tokens"]
    promoted_values: Float[np.ndarray, "n_latents tokens"]
    suppressed: Int[np.ndarray, "n_latents tokens"]
    suppressed_values: Float[np.ndarray, "n_latents tokens"]
    counts: Int[np.ndarray, "n_latents bins"]
    edges: Float[np.ndarray, "n_latents bins+1"]


@torch.inference_mode()
def decoder_logits(W_dec: Float[torch.Tensor, "n_latents d_model"], loaded: LoadedModel) -> Logits | None:
    """Each unit direction through the final norm and the head, without the mean over the vocabulary.

    Half the difference of the logits of the direction and of its opposite, so that biases of norm and head cancel: for
    a norm without a bias this is the direction's own logits (the usual "logit weights" W_dec · W_U with the norm's
    gain). The mean over the vocabulary is taken off, as it moves no probability. None for a model without a head.
    """
    head = loaded.model.get_output_embeddings() if loaded.objective in ("causal_lm", "masked_lm") else None
    if head is None or loaded.adapter.final_norm is None:
        return None
    norm = loaded.base.get_submodule(loaded.adapter.final_norm)
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
    found, step = _empty(len(unit), loaded.identity["vocabulary_size"]), rows_at_once(loaded)
    for first in range(0, len(unit), step):
        rows = unit[first : first + step].to(loaded.device, loaded.dtype)
        logits = (head(norm(rows)) - head(norm(-rows))).float() / 2
        _fill(found, first, logits.sub_(logits.mean(1, keepdim=True)))
        del logits  # before the next ones are made
    return found


def _empty(n_latents: int, vocabulary: int) -> Logits:
    n_tokens = min(N_TOKENS, vocabulary)
    tokens = (n_latents, n_tokens)
    return Logits(
        promoted=np.empty(tokens, np.int64),
        promoted_values=np.empty(tokens, np.float32),
        suppressed=np.empty(tokens, np.int64),
        suppressed_values=np.empty(tokens, np.float32),
        counts=np.empty((n_latents, HISTOGRAM_BINS), np.int64),
        edges=np.empty((n_latents, HISTOGRAM_BINS + 1), np.float32),
    )


def _fill(found: Logits, first: int, logits: Float[torch.Tensor, "latents vocabulary"]) -> None:
    latents, count = slice(first, first + len(logits)), found.promoted.shape[1]
    for sign, tokens, values in (
        (1, found.promoted, found.promoted_values),
        (-1, found.suppressed, found.suppressed_values),
    ):
        best = (logits * sign).topk(count, dim=1)
        tokens[latents], values[latents] = best.indices.cpu().numpy(), sign * best.values.cpu().numpy()
    for latent, row in enumerate(logits.cpu().numpy(), start=first):
        found.counts[latent], found.edges[latent] = np.histogram(row, HISTOGRAM_BINS)
