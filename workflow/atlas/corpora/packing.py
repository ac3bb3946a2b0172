"""Documents end to end in contexts of one length: no padding, boundaries kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from jaxtyping import Integer as Int

from atlas.corpora.encoding import Encoder

# Tokens of a block of contexts, which is held in memory.
BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, eq=False)
class Packed:
    """Whole contexts, one after another.

    `document` indexes the documents in their order; −1 where the tokenizer frames the context.
    """

    tokens: Int[np.ndarray, "contexts position"]
    document: Int[np.ndarray, "contexts position"]
    counted: Bool[np.ndarray, "contexts position"]


def pack(
    encoded: Iterable[tuple[int, list[int]]], encoder: Encoder, n_contexts: int, context_length: int
) -> Iterator[Packed]:
    """Yield `n_contexts` contexts of `context_length` tokens in blocks, filled with documents given as (index, ids).

    A document that does not fit goes on in the next context. Only as many documents are taken from `encoded` as are
    needed. Fewer contexts, all of them whole, come from documents that run out.
    """
    body_length = context_length - len(encoder.prefix) - len(encoder.suffix)
    per_block = max(1, BLOCK_TOKENS // context_length)
    left = n_contexts
    tokens, document = _body(min(per_block, left) * body_length)
    filled = 0
    for index, ids in encoded:
        place = 0
        while left and place < len(ids):
            part = ids[place : place + len(tokens) - filled]
            tokens[filled : filled + len(part)] = part
            document[filled : filled + len(part)] = index
            place, filled = place + len(part), filled + len(part)
            if filled == len(tokens):
                yield _framed(tokens, document, encoder, context_length)
                left -= len(tokens) // body_length
                tokens, document = _body(min(per_block, left) * body_length)
                filled = 0
        if not left:
            return
    if whole := filled // body_length * body_length:
        yield _framed(tokens[:whole], document[:whole], encoder, context_length)


def _body(length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(length, np.uint32), np.empty(length, np.int32)


def _framed(body: np.ndarray, of_document: np.ndarray, encoder: Encoder, context_length: int) -> Packed:
    """Put around the bodies of contexts what the tokenizer puts around a text."""
    n_prefix, n_suffix = len(encoder.prefix), len(encoder.suffix)
    inner = slice(n_prefix, context_length - n_suffix)
    body = body.reshape(-1, context_length - n_prefix - n_suffix)
    shape = (len(body), context_length)
    tokens, document, counted = np.empty(shape, np.uint32), np.full(shape, -1, np.int32), np.zeros(shape, np.bool_)
    tokens[:, :n_prefix], tokens[:, context_length - n_suffix :] = encoder.prefix, encoder.suffix
    tokens[:, inner] = body
    document[:, inner] = of_document.reshape(body.shape)
    counted[:, inner] = ~np.isin(body, sorted(encoder.not_counted))
    return Packed(tokens, document, counted)
