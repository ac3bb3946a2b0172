"""What a latent says to the output: the tokens whose logits its direction raises and lowers most."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from atlas.models.load import LoadedModel

N_TOKENS = 10
_CHUNK = 128
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
    parts: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(unit), _CHUNK):
        rows = unit[first : first + _CHUNK].to(loaded.device, loaded.dtype)
        logits = (head(norm(rows)) - head(norm(-rows))).float() / 2
        parts.append(_extremes(logits - logits.mean(1, keepdim=True)))
    return Logits(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _extremes(logits: Float[torch.Tensor, "latents vocabulary"]) -> tuple[np.ndarray, ...]:
    count = min(N_TOKENS, logits.shape[1])
    promoted, suppressed = logits.topk(count, dim=1), (-logits).topk(count, dim=1)
    histograms = [np.histogram(row, HISTOGRAM_BINS) for row in logits.cpu().numpy()]
    columns = (promoted.indices, promoted.values, suppressed.indices, -suppressed.values)
    counts, edges = zip(*histograms, strict=True)
    return *(column.cpu().numpy() for column in columns), np.stack(counts), np.stack(edges)
