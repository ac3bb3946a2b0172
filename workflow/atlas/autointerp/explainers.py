"""Explainers: from what a latent does to a label of a few words. Registered by name in `EXPLAINERS`.

An explainer gets the evidence of all latents at once, and gives for each a label, or None when it has none to give:
that is counted, never replaced.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.delphi import delphi_default
from atlas.autointerp.prompts import max_activation
from atlas.autointerp.tools import Explainer, LatentExamples, Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import MIN_PIECES, WindowWords, name_of
from atlas.models.load import LoadedModel
from atlas.models.token_logits import rows_at_once

_TOP_WORDS, _MIN_DOCUMENTS, _TINY = 5, 2, 1e-300
_PROMOTED, _PROMOTED_IN_LABEL = 10, 3


def lexical(evidence: Sequence[LatentExamples], tools: Tools) -> list[str | None]:
    """Without a language model: the words on which a latent fires most, and the tokens that it promotes most.

    A word counts by p·ln(p/q), its part of the divergence of p, its share of the activation in an example, averaged
    over the training examples (one strong firing does not outvote them all), from q, its share of all windows' tokens:
    what is merely frequent does not come first. A word of one document alone is left out, unless none is left.
    """
    base = np.bincount(tools.words.of.reshape(-1), minlength=len(tools.words.texts)) / tools.words.of.size
    return [_lexical(each, tools.words, tools.windows, base) for each in evidence]


def _lexical(
    evidence: LatentExamples, words: WindowWords, windows: Windows, base: Float[np.ndarray, " words"]
) -> str | None:
    activations = evidence.examples.train_activations.astype(np.float64)
    if not len(activations):
        return None
    found, place = np.unique(words.of[evidence.examples.train].reshape(-1), return_inverse=True)
    shares = activations / activations.sum(1, keepdims=True)  # an activating example has activation
    share = np.bincount(place, shares.reshape(-1), len(found)) / len(activations)
    lead = np.where(share > 0, share * np.log(np.maximum(share, _TINY) / base[found]), 0)
    fires = shares.reshape(-1) > 0
    document = np.repeat(windows.document[evidence.examples.train], windows.width)
    of_word = np.unique(np.stack([place[fires], document[fires]]), axis=1)[0]
    lead[np.bincount(of_word, minlength=len(found)) < _MIN_DOCUMENTS] -= lead.max() + 1  # after all others
    order = np.argsort(-lead, kind="stable")[:_TOP_WORDS]
    chosen = [words.texts[found[index]] for index in order if lead[index] > 0]
    chosen = chosen or [words.texts[found[order[0]]]]
    promoted = [token for token in evidence.promoted[:_PROMOTED_IN_LABEL] if token not in chosen]
    return ", ".join(chosen) + (f"; promotes {', '.join(promoted)}" if promoted else "")


EXPLAINERS: dict[str, Explainer] = {
    "lexical": lexical,
    "max_activation": max_activation,
    "delphi_default": delphi_default,
}


@dataclass(frozen=True, eq=False)
class Promoted:
    """Tokens that begin words, by what latents do to their logits: raised most, and lowered most, strongest first.

    Values are in standard deviations over the latents; `texts` are those of the vocabulary.
    """

    texts: Sequence[str]
    raised: Int[np.ndarray, "n_latents tokens"]
    raised_values: Float[np.ndarray, "n_latents tokens"]
    lowered: Int[np.ndarray, "n_latents tokens"]
    lowered_values: Float[np.ndarray, "n_latents tokens"]


@torch.inference_mode()
def find_promoted(
    W_dec: Float[torch.Tensor, "n_latents d_model"], loaded: LoadedModel, texts: Sequence[str]
) -> Promoted | None:
    """Tokens whose logits a latent moves most when its direction alone goes through final norm and head.

    Half the difference of the logits of the direction and of its opposite: biases of norm and head cancel. Each token's
    logit is taken in standard deviations over the latents: rare tokens with long output vectors would lead every list.
    Only tokens that begin a word. None for a model without output embeddings.
    """
    head = loaded.model.get_output_embeddings() if loaded.objective in ("causal_lm", "masked_lm") else None
    if head is None or loaded.adapter.final_norm is None or len(W_dec) < 2:
        return None
    norm = loaded.base.get_submodule(loaded.adapter.final_norm)
    kept = torch.from_numpy(np.flatnonzero(begins_word(texts))).to(loaded.device)

    step = rows_at_once(loaded)

    def logits(first: int) -> Float[torch.Tensor, "latents tokens"]:
        rows = W_dec[first : first + step].to(loaded.device, loaded.dtype)
        return ((head(norm(rows)) - head(norm(-rows))).float() / 2)[:, kept]

    starts = range(0, len(W_dec), step)
    total, squares = (torch.zeros(len(kept), dtype=torch.float64, device=loaded.device) for _ in range(2))
    for start in starts:
        part = logits(start).double()
        total += part.sum(0)
        squares += part.square_().sum(0)
        del part  # before the next one is made
    total, squares = total / len(W_dec), squares / len(W_dec)
    mean, sd = total.float(), (squares - total**2).clamp_min(1e-12).sqrt().float()
    # Made before the loop: parts of each chunk would lie between freed logits, which glibc then cannot use again.
    count = min(2 * _PROMOTED, len(kept))
    raised, lowered = (torch.empty(len(W_dec), count, dtype=torch.int64) for _ in range(2))
    raised_values, lowered_values = (torch.empty(len(W_dec), count) for _ in range(2))
    for start in starts:
        standard = logits(start).sub_(mean).div_(sd)
        these = slice(start, start + len(standard))
        for tokens, values, largest in ((raised, raised_values, True), (lowered, lowered_values, False)):
            values[these], indices = standard.topk(count, dim=1, largest=largest)
            tokens[these] = kept[indices]
        del standard, indices  # before the next ones are made
    return Promoted(texts, raised.numpy(), raised_values.numpy(), lowered.numpy(), lowered_values.numpy())


def promoted_tokens(
    W_dec: Float[torch.Tensor, "n_latents d_model"], loaded: LoadedModel, texts: Sequence[str]
) -> list[tuple[str, ...]]:
    """Different names of the tokens that each latent raises most; empty for a model without output embeddings."""
    found = find_promoted(W_dec, loaded, texts)
    if found is None:
        return [()] * len(W_dec)
    return [tuple(name for name, _ in first_of_names(row, texts)) for row in found.raised]


def first_of_names(tokens: Int[np.ndarray, " tokens"], texts: Sequence[str]) -> list[tuple[str, int]]:
    """Different names with the place of the first token that has each, at most ten: `The` and ` the` are one."""
    places: dict[str, int] = {}
    for place, token in enumerate(tokens):
        places.setdefault(name_of(texts[int(token)]), place)
    return list(places.items())[:_PROMOTED]


def begins_word(texts: Sequence[str]) -> Bool[np.ndarray, " vocabulary"]:
    """Return whether a token is a word's begin: letters after white space, where the vocabulary has such, else no
    piece.
    """
    spaced = np.array([text[:1].isspace() and text[1:].isalpha() for text in texts])
    whole = np.array([text.isalpha() for text in texts])
    return spaced if spaced.sum() >= MIN_PIECES else whole
