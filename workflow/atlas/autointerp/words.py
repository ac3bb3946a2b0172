"""Words of windows: tokens joined to the words that they are pieces of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer as Int

from atlas.autointerp.safe import printable
from atlas.autointerp.windows import Windows
from atlas.latents.token_classes import TokenTable

_PIECE = "##"
# A vocabulary with so many tokens of a kind has the kind on purpose: with so many marked pieces it is WordPiece, where
# a token without the mark begins a word.
MIN_PIECES = 100


@dataclass(frozen=True, eq=False)
class WindowWords:
    """The word of every token of the windows, as a number into `texts`: lower case, printable, without white space."""

    of: Int[np.ndarray, "windows width"]
    texts: tuple[str, ...]

    @classmethod
    def find(cls, windows: Windows, tokens: TokenTable) -> "WindowWords":
        """A token goes on with a word when both sides of the seam are letters; other tokens stand alone."""
        used, place = np.unique(windows.tokens, return_inverse=True)
        place, texts = place.reshape(windows.tokens.shape), [tokens.texts[token] for token in used]
        pieces = sum(text.startswith(_PIECE) for text in tokens.texts) >= MIN_PIECES
        begins = np.array([text.startswith(_PIECE) if pieces else text[:1].isalpha() for text in texts])
        ends = np.array([text[-1:].isalpha() for text in texts])
        joined = np.zeros(place.shape, bool)
        joined[:, 1:] = begins[place[:, 1:]] & ends[place[:, :-1]]
        number = (np.cumsum(~joined) - 1).reshape(place.shape)
        words = [""] * (int(number.max(initial=-1)) + 1)
        for word, token in zip(number.reshape(-1), place.reshape(-1), strict=True):
            words[word] += texts[token].removeprefix(_PIECE) if pieces else texts[token]
        names = [name_of(word) for word in words]
        different, of_word = np.unique(names, return_inverse=True)
        return cls(of_word[number], tuple(map(str, different)))


def name_of(text: str) -> str:
    """Return how a word or token is called: without white space around it, lower case, everything visible."""
    stripped = text.strip()
    if stripped:
        return printable(stripped.lower())
    return "newline" if "\n" in text else "space" if text else "nothing"
