"""The text that tokens have inside a text: a decoder may take the first token for the beginning of one.

Decoders of the SentencePiece kind drop the space before the first token, and the decoder of WordPiece writes spaces
between tokens only. Tokens that are decoded one by one, or in runs, and joined would then run together.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from atlas.errors import AtlasError

# Tokens of single bytes: the decoder joins their bytes with those of the tokens beside them.
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def text_inside(tokenizer: Any, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """Text of consecutive tokens as it is in the middle of a text, hence with the space before its first word."""
    return texts_inside(tokenizer, [ids], skip_special_tokens)[0]


def texts_inside(tokenizer: Any, runs: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
    """`text_inside` of several runs of tokens."""
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    anchor = _anchor(tokenizer)
    if anchor is None:
        return [tokenizer.decode(list(ids), **options) for ids in runs]
    index, before = anchor
    found = []
    for ids in runs:
        text = tokenizer.decode([index, *ids], **options)
        if not text.startswith(before):
            raise AtlasError(
                f"the tokenizer decodes {[index, *ids]} as {text[:80]!r}: must begin with {before!r}, the text of "
                f"token {index}, or the texts of single tokens are unknown; use a tokenizer whose tokens spell text"
            )
        found.append(text[len(before) :])
    return found


@lru_cache(maxsize=8)
def _anchor(tokenizer: Any) -> tuple[int, str] | None:
    """Return a token that can precede any other, and its text: letters or digits that later tokens do not change.

    None where the vocabulary has no such token; it then has no token that is a word.
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    symbol = getattr(tokenizer, "convert_ids_to_tokens", lambda index: "")
    for index in range(len(tokenizer)):
        text = tokenizer.decode([index], **options)
        if not text.isalnum() or not text.isascii() or _BYTE.fullmatch(symbol(index) or ""):
            continue
        if tokenizer.decode([index, index], **options).startswith(text):
            return index, text
    return None
