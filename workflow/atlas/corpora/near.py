"""Near-duplicates: evaluation documents most of whose runs of words are in one training document. docs/metrics.md, 1.

Counted exactly, not estimated: MinHash estimates what two documents share of both together, which is little where a
short one is in a long one. The runs of the evaluation documents are held in memory, the training documents pass by.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash
from jaxtyping import Float, UInt64
from jaxtyping import Integer as Int

from atlas.corpora.templates import ROLE_NAMES, Template

# Words of a run, and the share of a document's runs beyond which it is a near-duplicate.
RUN_WORDS, THRESHOLD = 13, 0.5
# Runs of evaluation documents that are held at once, about 50 bytes each while they are sorted.
HELD_RUNS = 2**24
# Scripts without spaces between words: each character is a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_ROLE = re.compile(rf"^(?:{'|'.join(sorted(map(re.escape, ROLE_NAMES), key=len, reverse=True))}): ", re.I | re.M)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_KNOWN_WORDS = 500_000


def bare_text(text: str, template: Template) -> str:
    """A stored document without what its template wrote: the same for all templates of one conversation."""
    if template == "chat_template":
        text = "\n\n".join(message["content"] for message in json.loads(text))
    return _ROLE.sub("", text)


def same_text(text: str) -> bytes:
    """A digest of a bare text, without regard to its white space."""
    return xxhash.xxh128_digest(" ".join(text.split()).encode())


class Runs:
    """Numbers of the runs of words of texts; the same run has the same number."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}

    def of(self, text: str) -> UInt64[np.ndarray, " runs"]:
        """The different runs of RUN_WORDS words; of a shorter text all its words are one run."""
        words = _WORD.findall(text.lower())
        if not words:
            return np.empty(0, np.uint64)
        if len(self._words) > _KNOWN_WORDS:
            self._words.clear()
        known = self._words
        numbers = []
        for word in words:
            number = known.get(word)
            if number is None:
                number = known[word] = xxhash.xxh64_intdigest(word.encode())
            numbers.append(number)
        values = np.array(numbers, np.uint64)
        width = min(RUN_WORDS, len(values))
        n_runs = len(values) - width + 1
        runs = np.zeros(n_runs, np.uint64)
        for place in range(width):
            runs = runs * _FACTOR + values[place : place + n_runs]
        return np.unique(runs)


@dataclass(frozen=True, eq=False)
class Nearest:
    """Largest share of each evaluation document's runs in one training document, and which that is (−1: none)."""

    share: Float[np.ndarray, " documents"]
    training: Int[np.ndarray, " documents"]

    @property
    def near(self) -> Int[np.ndarray, " found"]:
        """The near-duplicates."""
        return np.flatnonzero(self.share > THRESHOLD)


def held_documents(texts: Iterable[str], most_runs: int = HELD_RUNS) -> Iterator[list[np.ndarray]]:
    """The runs of consecutive documents, as many as may be held at once."""
    runs, held = Runs(), 0
    block: list[np.ndarray] = []
    for text in texts:
        found = runs.of(text)
        if block and held + len(found) > most_runs:
            yield block
            block, held = [], 0
        block.append(found)
        held += len(found)
    if block:
        yield block


def nearest(judged: list[np.ndarray], trained: Iterable[str]) -> Nearest:
    """Compare the runs of evaluation documents with every training text, given one after the other."""
    sizes = np.array([len(runs) for runs in judged], np.int64)
    owners = np.repeat(np.arange(len(judged), dtype=np.int32), sizes)
    keys = np.concatenate([*judged, np.empty(0, np.uint64)])
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    share, training, runs = np.zeros(len(judged)), np.full(len(judged), -1, np.int64), Runs()
    for number, text in enumerate(trained):
        own = runs.of(text)
        first, last = np.searchsorted(keys, own, "left"), np.searchsorted(keys, own, "right")
        met = np.flatnonzero(last > first)
        if not len(met):
            continue
        lengths = last[met] - first[met]
        places = np.repeat(first[met] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        documents, counts = np.unique(owners[places], return_counts=True)
        shares = counts / sizes[documents]
        better = shares > share[documents]
        share[documents[better]], training[documents[better]] = shares[better], number
    return Nearest(share, training)
