"""Tokens as people read them: whole characters, what is invisible made visible, and markup that cannot be forged."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from transformers import PreTrainedTokenizerBase

from atlas.latents.token_classes import TokenTable
from atlas.models.load import load_tokenizer
from atlas.token_text import text_inside

# Shades of a highlight: a token's value is its attribute data-1 to data-8, which the style sheet shades. A class and
# an attribute beside it would take a tenth more of a page.
SHADES = 8
_UNKNOWN_BYTES = "\N{REPLACEMENT CHARACTER}"
# A character of UTF-8 has at most four bytes, hence four tokens of one byte each.
_MAX_PARTS = 4
_GLYPHS = {"\n": "↵", "\t": "⇥", "\r": "␍"}


class TokenPieces:
    """Cuts runs of token ids into pieces of text that stand for whole characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, table: TokenTable):
        self._tokenizer, self._spelled = tokenizer, table.spelled
        self.special = np.asarray(table.classes) == 0

    @classmethod
    def of(cls, model_folder: Path, table: TokenTable) -> "TokenPieces":
        """Of a prepared model's tokenizer."""
        return cls(load_tokenizer(model_folder), table)

    def text(self, token: int) -> str:
        """Return a token as it appears inside a text: word pieces without their prefix, words with the space before."""
        return self._spelled[token]

    def pieces(self, tokens: Sequence[int]) -> Iterator[tuple[int, int, str]]:
        """(first, stop, text) of consecutive tokens: one token, or as few as make whole characters together."""
        first = 0
        while first < len(tokens):
            text, stop = self.text(tokens[first]), first + 1
            if _UNKNOWN_BYTES in text:
                for end in range(first + 2, min(first + _MAX_PARTS, len(tokens)) + 1):
                    joined = text_inside(self._tokenizer, tokens[first:end])
                    if _UNKNOWN_BYTES not in joined:
                        text, stop = joined, end
                        break
            yield first, stop, text
            first = stop


def visible(text: str) -> str:
    """Text whose control, direction and other invisible characters are shown by their number, so that none acts."""
    return "".join(map(_shown, text)) if not text.isascii() or not text.isprintable() else text


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    if character in _GLYPHS:
        return _GLYPHS[character]
    # Cc control, Cf direction and other format, Cs Co Cn no character, Zl Zp separators of lines.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def highlighted(
    pieces: TokenPieces,
    tokens: Sequence[int],
    values: Sequence[float],
    largest: float,
    peak: int | None = None,
    massive: Sequence[bool] | None = None,
) -> Markup:
    """A context as HTML: tokens that fire are shaded by their share of `largest`, and carry their value.

    `peak` is the token that the context was chosen for; those on `massive` activations, which may have more than
    `largest`, are outlined.
    """
    parts = []
    for first, stop, text in pieces.pieces(tokens):
        value = max(values[first:stop])
        shown = escape(visible(text))
        if value > 0:
            shade = min(SHADES, 1 + int(SHADES * value / largest)) if largest > 0 else 1
            names = "p" if peak is not None and first <= peak < stop else ""
            if massive is not None and any(massive[first:stop]):
                names = f'"{names} m"' if names else "m"
            mark = f" class={names}" if names else ""
            shown = f"<i{mark} data-{shade}={value:.3g}>{shown}</i>"
        elif pieces.special[tokens[first]]:
            shown = f"<em>{shown}</em>"
        parts.append(str(shown))
    return Markup("".join(parts))  # every part is escaped above
