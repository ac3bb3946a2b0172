"""Long texts to token ids in slices: a tokenizer keeps over a hundred bytes for every character of a text."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

# Characters of a slice, and of its overlap with the next. Texts of one call have no more than a slice together.
SLICE, OVERLAP = 2**19, 2**12
# Tokens on each side of a seam on which both slices must agree.
_AGREED = 16


def encode_texts(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """Ids of each text, without special tokens around it; `options` are the tokenizer's."""
    found: list[list[int]] = []
    for batch in _batches(texts):
        if len(batch) == 1 and len(batch[0]) > SLICE and tokenizer.is_fast:
            found.append(_encode_long(tokenizer, batch[0], options))
        else:
            found += tokenizer(batch, add_special_tokens=False, verbose=False, **options)["input_ids"]
    return found


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Consecutive texts of a slice's characters together; longer texts alone."""
    batch: list[str] = []
    held = 0
    for text in texts:
        if batch and held + len(text) > SLICE:
            yield batch
            batch, held = [], 0
        batch.append(text)
        held += len(text)
    if batch:
        yield batch


def _encode_long(tokenizer: Any, text: str, options: dict[str, Any]) -> list[int]:
    """The ids of the whole text: slices are joined where both have the same tokens at the same characters."""
    ids: list[int] = []
    tail = np.empty((0, 3), np.int64)
    begin = 0
    while True:
        stop = min(begin + SLICE, len(text))
        found = tokenizer(
            text[begin:stop], add_special_tokens=False, return_offsets_mapping=True, verbose=False, **options
        )
        tokens = np.column_stack([np.array(found["offset_mapping"]) + begin, np.array(found["input_ids"])])
        if begin:
            seam = _seam(tail, tokens, begin, text)
            if seam is None:
                log.warning("a text of %d characters is tokenised whole: it has no place to cut it at", len(text))
                return tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
            kept, tokens = seam[0], tokens[seam[1] :]
            del ids[len(ids) - len(tail) + kept :]
        ids += tokens[:, 2].tolist()
        if stop == len(text):
            return ids
        begin = stop - OVERLAP
        tail = tokens[np.searchsorted(tokens[:, 0], begin) :]


def _seam(tail: np.ndarray, tokens: np.ndarray, begin: int, text: str) -> tuple[int, int] | None:
    """Indices in the tokens of one slice and of the next at which the next takes over; None where they disagree.

    Near the middle of the overlap, where neither slice's end matters; after white space if that can be.
    """
    first, last = np.searchsorted(tail[:, 0], [begin + OVERLAP // 4, begin + 3 * OVERLAP // 4])
    candidates = range(max(first, _AGREED), min(last, len(tail) - _AGREED))
    spaced = [index for index in candidates if text[tail[index, 0]].isspace() or text[tail[index, 0] - 1].isspace()]
    for index in [*spaced, *candidates]:
        other = int(np.searchsorted(tokens[:, 0], tail[index, 0]))
        if other < _AGREED or tail[index - 1, 0] == tail[index, 0]:
            continue
        ours, theirs = (part[place - _AGREED : place + _AGREED] for part, place in ((tail, index), (tokens, other)))
        if np.array_equal(ours, theirs):
            return index, other
    return None
