"""Activations at the last token of many short texts, at several hooks in one pass."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache

from atlas.corpora.encoding import Encoder
from atlas.errors import SourceError
from atlas.models.forward import capture, read_prefix, require_positions
from atlas.models.load import LoadedModel
from atlas.progress import progress

# Tokens of one forward pass: contexts of one length go together, so no padding enters a model.
BATCH_TOKENS = 4096


def framed_ids(encoder: Encoder, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Ids of each text with what the tokenizer puts around one; of longer texts the last `max_tokens`.

    Raises SourceError for a text without a single token.
    """
    result = []
    for text, ids in zip(texts, cast(list[list[int]], encoder.encode(texts)), strict=True):
        body = ids[:-1]  # without the separator of documents
        if not body:
            raise SourceError(f"prompt {text[:60]!r} has no token: leave it out")
        result.append([*encoder.prefix, *body[-max_tokens:], *encoder.suffix])
    return result


def last_token_rows(
    loaded: LoadedModel,
    contexts: Sequence[Sequence[int]],
    hooks: Sequence[str],
    n_after: int = 0,
    title: str = "rows",
    alike: Sequence[Sequence[int]] | None = None,
) -> dict[str, Float[Tensor, "contexts d_model"]]:
    """Activations at position −1 − `n_after` of every context, in the order given and the model's number format.

    `alike`: places of contexts that begin alike, each context in one group. What a group begins with is run once,
    where a model can go on from it (`read_prefix`); rows are the same but for rounding.
    Raises AtlasError when a context is longer than the model's positions.
    """
    require_positions(loaded, max(map(len, contexts), default=0))  # the longest are read last
    rows = {hook: torch.empty(len(contexts), loaded.identity["d_model"], dtype=loaded.dtype) for hook in hooks}
    with progress(sum(map(len, contexts)), title, "token") as shown:
        for group in [range(len(contexts))] if alike is None else alike:
            prefix, cache = _shared(loaded, [contexts[place] for place in group], hooks, 1 + n_after)
            for batch in _batches([len(contexts[place]) - len(prefix) for place in group]):
                places = [group[number] for number in batch]
                ids = torch.tensor([contexts[place][len(prefix) :] for place in places], device=loaded.device)
                for hook, values in capture(loaded, ids, hooks, cache).items():
                    rows[hook][places] = values[:, -1 - n_after].cpu()
                shown.update(sum(len(contexts[place]) for place in places))
    return rows


def _shared(
    loaded: LoadedModel, contexts: Sequence[Sequence[int]], hooks: Sequence[str], least: int
) -> tuple[Sequence[int], Cache | None]:
    """Return what all contexts begin with, but for at least their last `least` tokens, and what the model keeps of
    it.
    """
    beginnings = [list(context[:-least]) for context in contexts]
    # What the first and the last in order have in common, all have in common.
    pairs = zip(min(beginnings), max(beginnings), strict=False)
    prefix = [token for token, other in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    if len(contexts) < 2 or not prefix:
        return [], None
    cache = read_prefix(loaded, torch.tensor(prefix, device=loaded.device), hooks)
    return ([], None) if cache is None else (prefix, cache)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of contexts of equal length, together at most `BATCH_TOKENS` tokens, but at least one context."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    batch: list[int] = []
    for place in order:
        if batch and (lengths[place] != lengths[batch[0]] or (len(batch) + 1) * lengths[place] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
