"""Classes of tokens, decided on the text that a token stands for. docs/metrics.md, section 6."""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Integer as Int

from atlas.corpora.encoding import make_encoder
from atlas.errors import EvaluationError
from atlas.token_text import texts_inside

CLASSES = ("special", "newline", "space", "digit", "punctuation", "markup", "word")
WORD = CLASSES.index("word")
# Characters that prose hardly has, and markup, tables and code are made of.
_MARKUP = frozenset("<>{}[]|\\`*_#=~^")
_UNKNOWN_BYTES = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Class and text of every token id of a tokenizer.

    `texts` name tokens: those that go on with a word have the mark that the vocabulary gives them, as ``##ing``.
    `spelled` are the texts that, joined, are the text of consecutive tokens; by default the same.
    """

    classes: Int[np.ndarray, " vocabulary"]
    texts: list[str]
    spelled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.spelled:
            self.spelled.extend(self.texts)

    @classmethod
    def of(cls, model_folder: Path) -> "TokenTable":
        """Of a prepared model's tokenizer. Special is what the corpora do not count."""
        encoder = make_encoder(model_folder, "plain")
        tokenizer = encoder.tokenizer
        size = max(tokenizer.get_vocab().values()) + 1
        each = [[index] for index in range(size)]
        spelled = texts = texts_inside(tokenizer, each)
        model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
        prefix = getattr(model, "continuing_subword_prefix", None) or ""
        if prefix:
            texts = tokenizer.batch_decode(each, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            spelled = [
                alone if index in encoder.not_counted else inside
                for index, (alone, inside) in enumerate(zip(texts, spelled, strict=True))
            ]
        classes = [
            CLASSES.index("special") if index in encoder.not_counted else token_class(text.removeprefix(prefix))
            for index, text in enumerate(texts)
        ]
        return cls(np.array(classes, np.uint8), texts, spelled)

    def of_tokens(self, tokens: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """Index into CLASSES of each token; raises EvaluationError for an id that the tokenizer lacks."""
        if len(tokens) and (highest := int(tokens.max())) >= len(self.classes):
            raise EvaluationError(
                f"token id {highest} occurs, but the tokenizer has ids up to {len(self.classes) - 1}: these codes were "
                "made with another tokenizer"
            )
        return self.classes[tokens]


def token_class(text: str) -> int:
    """Index into CLASSES of a token's text, without regard to whether it is a special token.

    A letter of any script, or a part of a character (bytes that are no text alone), makes a word; else a digit
    decides; else markup; what is left is punctuation, or white space.
    """
    if not text or text.isspace():
        return CLASSES.index("newline" if set(text) & set("\n\r\v\f\x85\u2028\u2029") else "space")
    kinds = {unicodedata.category(character)[0] for character in text}
    if "L" in kinds or _UNKNOWN_BYTES in text:
        return WORD
    if "N" in kinds:
        return CLASSES.index("digit")
    return CLASSES.index("markup" if _MARKUP & set(text) else "punctuation")
