"""Documents end to end in contexts of one length: no padding, boundaries kept."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from jaxtyping import Integer as Int

from atlas.corpora.encoding import Encoder


@dataclass(frozen=True, eq=False)
class Packed:
    """Whole contexts of a split, and how many tokens of text there were when documents ran out before they were full.

    `document` indexes the documents in their order; −1 where the tokenizer frames the context.
    """

    tokens: Int[np.ndarray, "contexts position"]
    document: Int[np.ndarray, "contexts position"]
    counted: Bool[np.ndarray, "contexts position"]
    n_filled: int


def pack(encoded: Iterable[tuple[int, list[int]]], encoder: Encoder, n_contexts: int, context_length: int) -> Packed:
    """Fill `n_contexts` contexts of `context_length` tokens with documents, given as (index, ids).

    A document that does not fit goes on in the next context. Only as many documents are taken from `encoded` as are
    needed. `n_filled` is the number of whole contexts, at most `n_contexts`.
    """
    n_prefix, n_suffix = len(encoder.prefix), len(encoder.suffix)
    body_length = context_length - n_prefix - n_suffix
    body_tokens = np.empty(n_contexts * body_length, np.uint32)
    body_document = np.empty(n_contexts * body_length, np.int32)
    filled = 0
    for index, ids in encoded:
        part = ids[: len(body_tokens) - filled]
        body_tokens[filled : filled + len(part)] = part
        body_document[filled : filled + len(part)] = index
        filled += len(part)
        if filled == len(body_tokens):
            break
    n_filled = filled // body_length
    shape = (n_filled, context_length)
    tokens, document, counted = np.empty(shape, np.uint32), np.full(shape, -1, np.int32), np.zeros(shape, np.bool_)
    body = slice(n_prefix, context_length - n_suffix)
    tokens[:, :n_prefix], tokens[:, context_length - n_suffix :] = encoder.prefix, encoder.suffix
    tokens[:, body] = body_tokens[: n_filled * body_length].reshape(n_filled, body_length)
    document[:, body] = body_document[: n_filled * body_length].reshape(n_filled, body_length)
    counted[:, body] = ~np.isin(tokens[:, body], sorted(encoder.not_counted))
    return Packed(tokens, document, counted, n_filled)
