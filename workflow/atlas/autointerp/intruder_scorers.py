"""Scorers that pick the window that does not belong: a language model, or embeddings of the windows.

They are registered in `INTRUDERS`.

A scorer gets line-ups and gives for each the place of the window that it takes for the intruder, −1 when it has no
answer. It never learns the latent, a label, or which window was put in.
"""

import re
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from jaxtyping import Integer as Int

from atlas.autointerp.clients import complete_all
from atlas.autointerp.prompts import highlighted, one_line
from atlas.autointerp.protocol import Client, Reply, Request
from atlas.autointerp.reasoning import list_of
from atlas.autointerp.scorers import window_texts
from atlas.autointerp.tools import IntruderScorer, Lineup, ScorerTools

_TASK = (
    "All but one of the {n} numbered examples activate the same unit of a neural network, most on the words between << "
    "and >>. One was put in from elsewhere, with marks at random. Find it by what the others have in common. Answer "
    "with its number alone, in brackets, such as [{sample}]."
)
_REPLY_TOKENS = 16


def intruder(tools: ScorerTools) -> IntruderScorer:
    """A language model reads the windows with their highlights, and names the one that does not belong."""

    def pick(lineups: Sequence[Lineup]) -> Int[np.ndarray, " lineups"]:
        requests = [_ask(tools, lineup) for lineup in lineups]
        replies = complete_all(cast(Client, tools.tools.client), requests, "intruder")
        picks = [read_pick(reply, len(own.windows)) for reply, own in zip(replies, lineups, strict=True)]
        return np.array(picks, np.int64)

    return pick


def intruder_embedding(tools: ScorerTools) -> IntruderScorer:
    """The window whose sentence embedding has the lowest cosine to the mean of the others'. No language model."""

    def pick(lineups: Sequence[Lineup]) -> Int[np.ndarray, " lineups"]:
        if not lineups:
            return np.empty(0, np.int64)
        asked = np.unique(np.concatenate([own.windows for own in lineups]))
        assert tools.embed is not None  # checked before anything is scored
        vectors = tools.embed(window_texts(tools.tools, asked)).astype(np.float64)
        return np.array([_farthest(vectors[np.searchsorted(asked, own.windows)]) for own in lineups], np.int64)

    return pick


INTRUDERS: dict[str, Callable[[ScorerTools], IntruderScorer]] = {
    "intruder": intruder,
    "intruder_embedding": intruder_embedding,
}


def read_pick(reply: Reply | None, shown: int) -> int:
    """The place that a reply names, counted from 0; −1 unless it names exactly one of the `shown`.

    A number in brackets, or nothing but a number.
    """
    text = list_of(reply)
    named = set(re.findall(r"\[\s*(\d+)\s*\]", text)) or set(re.findall(r"^(\d+)\.?$", text))
    number = int(named.pop()) if len(named) == 1 else 0
    return number - 1 if 1 <= number <= shown else -1


def _ask(tools: ScorerTools, lineup: Lineup) -> Request:
    texts = [
        one_line(highlighted(tools.tools, tools.tools.tokenizer, int(window), marks))
        for window, marks in zip(lineup.windows, lineup.highlights, strict=True)
    ]
    shown = len(texts)
    return Request(
        (
            ("system", _TASK.format(n=shown, sample=shown)),
            ("user", "\n".join(f"Example {number}: {text}" for number, text in enumerate(texts, 1))),
        ),
        _REPLY_TOKENS,
        seed=tools.tools.seed,
        choices=tuple(str(number) for number in range(1, shown + 1)),
        n_answers=1,
    )


def _farthest(vectors: np.ndarray) -> int:
    others = vectors.sum(0) - vectors
    length = np.maximum(np.linalg.norm(others, axis=1), np.finfo(np.float64).tiny)
    return int(np.argmin((vectors * others).sum(1) / length))
