"""Kinds of tokens that financial text turns on, decided by rules on the text of whole documents.

Token classes (`atlas.latents.token_classes`) look at one token: the 3, the point and the 5 of "3.5%" are a digit,
punctuation and a digit to them. Here an expression is found in the document's text, and all its tokens are of its kind.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool
from jaxtyping import Integer as Int

from atlas.corpora.encoding import make_encoder
from atlas.errors import EvaluationError
from atlas.latents.token_classes import TokenTable

# Where expressions overlap the earlier kind wins: "$3.5 million" is an amount, and its digits are no bare numbers.
KINDS = ("amount", "percent", "ratio", "number", "entity", "other")
# What is reported: kinds together.
GROUPS = {
    "number": ("amount", "percent", "ratio", "number"),
    "ratio": ("percent", "ratio"),
    "entity": ("entity",),
    "financial": ("amount", "percent", "ratio", "number", "entity"),
    "other": ("other",),
    "all": KINDS,
}

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_MAGNITUDE = r"(?:hundred|thousand|million|billion|trillion|bn|mn|tn|[mkb])\b"
_CURRENCY = (
    r"(?:dollars?|euros?|pounds?|yen|yuan|renminbi|rupees?|francs?|cents?|pence|roubles?|rubles?|won|pesos?|reais|"
    r"shillings?|naira|rand)\b"
)
_PART = r"(?:half|halves|thirds?|quarters?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?)"
_PATTERNS = {
    "amount": (
        rf"(?:\b[A-Z]{{1,3}})?[$£€¥₹]\s?{_NUMBER}(?:[\s-]?{_MAGNITUDE})?"
        rf"|\b{_NUMBER}(?:[\s-]{_MAGNITUDE})?\s(?:[A-Z][a-z]+\s)?{_CURRENCY}"
        rf"|\b(?:USD|EUR|GBP|JPY|CNY|CHF|Rs\.?)\s?{_NUMBER}(?:[\s-]?{_MAGNITUDE})?"
    ),
    "percent": rf"\b{_NUMBER}(?:\s?%|\s?per\s?cent\b|[\s-]percentage[\s-]points?\b|[\s-]basis[\s-]points?\b|\s?bps\b)",
    "ratio": (
        rf"\b{_NUMBER}(?:\s?x|[\s-]times)\b|\b\d+[-\s](?:to|for)[-\s]\d+\b|\b\d+/\d+\b|\bP/E\b"
        rf"|\b(?:one|two|three|four)[-\s]{_PART}\b|\b(?:debt|loan|price|cost|capital|deposit|credit)-to-[A-Za-z]+\b|\bratios?\b"
    ),
    "number": rf"\b{_NUMBER}(?:[\s-]?{_MAGNITUDE})?|\b(?:millions?|billions?|trillions?)\b",
}
_NAME = re.compile(r"[A-Z][\w&’'-]*(?:\s(?:(?:of|and|for|&)\s(?:the\s)?)?[A-Z][\w&’'-]*)*")
# Words with a capital that name no one: what begins sentences, days and months.
_NO_NAMES = frozenset(
    "I A An The This That These Those It He She We They You His Her Their Its Our My In On At By For From To With As "
    "But And Or If When While After Before Since Although However Some Many Most All Both Mr Mrs Ms Dr Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday January February March April May June July August September October "
    "November December".split()
)
_PROBE = "Profit rose 3.5% to $1.2 billion at Acme."


@dataclass(frozen=True, eq=False)
class TokenTexts:
    """The text of every token id, such that the texts of a document's tokens, joined, are the document."""

    texts: Sequence[str]

    @classmethod
    def of(cls, model_folder: Path) -> "TokenTexts":
        """Of a prepared model's tokenizer; EvaluationError if its tokens do not spell text, as those of WordPiece."""
        encoder, texts = make_encoder(model_folder, "plain"), TokenTable.of(model_folder).spelled
        spelled = "".join(texts[token] for token in cast(list[list[int]], encoder.encode([_PROBE]))[0][:-1])
        # Tokenizers of the SentencePiece kind put a space before the text.
        if spelled not in (_PROBE, f" {_PROBE}"):
            raise EvaluationError(
                f"{model_folder}: joined, the tokens of {_PROBE!r} are {spelled!r}: numbers and names cannot be found "
                "in what this tokenizer makes of text; expected a tokenizer whose tokens spell the text"
            )
        return cls(texts)

    def kinds(
        self, tokens: Int[np.ndarray, " rows"], document: Int[np.ndarray, " rows"], counted: Bool[np.ndarray, " rows"]
    ) -> Int[np.ndarray, " rows"]:
        """Index into KINDS of each row of a corpus, in the order of its text; `other` where a row is not counted."""
        kinds = np.full(len(tokens), KINDS.index("other"), np.uint8)
        order = np.flatnonzero(counted)
        order = order[np.argsort(document[order], kind="stable")]
        for rows in np.split(order, np.flatnonzero(np.diff(document[order])) + 1):
            kinds[rows] = token_kinds([self.texts[int(token)] for token in tokens[rows]])
        return kinds


def token_kinds(texts: Sequence[str]) -> Int[np.ndarray, " tokens"]:
    """Index into KINDS of each token of a document, given the tokens' texts in order."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    # Spaces before a word are part of its token, and of no expression.
    begins = ends - [len(text.lstrip()) for text in texts]
    kinds = np.full(len(texts), KINDS.index("other"), np.uint8)
    for begin, end, kind in reversed(list(expressions("".join(texts)))):
        kinds[(begins < end) & (ends > begin) & (begins < ends)] = KINDS.index(kind)
    return kinds


def expressions(text: str) -> Iterator[tuple[int, int, str]]:
    """Begin, end and kind of every expression of a text; of overlapping ones the one that comes first here wins."""
    for kind, pattern in _PATTERNS.items():
        for match in re.finditer(pattern, text):
            yield *match.span(), kind
    for begin, end in _names(text):
        yield begin, end, "entity"


def _names(text: str) -> Iterator[tuple[int, int]]:
    """Runs of words with a capital. One word alone that begins a sentence is none, unless it is all capitals."""
    for match in _NAME.finditer(text):
        words = [(word.start() + match.start(), word[0]) for word in re.finditer(r"\S+", match[0])]
        begins_sentence = (
            re.search(r"(?:^|[.!?:\n\"“”‘])\s*$", text[max(0, match.start() - 3) : match.start()]) is not None
        )
        while words and (_is_no_name(words[0][1]) or words[0][1] in ("of", "and", "for", "&", "the")):
            words, begins_sentence = words[1:], False
        while words and _is_no_name(words[-1][1]):
            words = words[:-1]
        if not words or (begins_sentence and len(words) == 1 and not re.fullmatch(r"[A-Z][A-Z&-]+", words[0][1])):
            continue
        yield words[0][0], words[-1][0] + len(words[-1][1])


def _is_no_name(word: str) -> bool:
    return re.split("[’']", word)[0] in _NO_NAMES  # I've, It's


def in_group(kinds: Int[np.ndarray, " rows"], group: str) -> Bool[np.ndarray, " rows"]:
    """Return which rows are of a kind of this group."""
    return np.isin(kinds, [KINDS.index(kind) for kind in GROUPS[group]])
