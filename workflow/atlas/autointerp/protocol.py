"""Requests, replies, and the protocol between those who ask a language model and those who answer for it."""

from dataclasses import dataclass
from typing import Protocol


class NoReplyError(Exception):
    """A request has no answer, for good: counted, never replaced by a guess."""


@dataclass(frozen=True)
class Request:
    """A conversation that a reply continues.

    With `choices` the reply is a list of `n_answers` of them, one per item that the prompt numbers, and a client that
    can gives the probability of the first choice for each.
    """

    messages: tuple[tuple[str, str], ...]  # (role, content)
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    choices: tuple[str, ...] = ()
    n_answers: int = 0


@dataclass(frozen=True)
class Reply:
    """Text, and where the client knows them the probabilities of the first choice; tokens are what was paid.

    `cut`: the text ends because the limit of tokens was reached. The text may hold a thought before the answer
    (atlas.autointerp.reasoning).
    """

    text: str
    probabilities: tuple[float, ...] | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    cut: bool = False


class Client(Protocol):
    """Answers requests. `identity` names all that changes a reply: endpoint's model, template, sampling.

    `concurrency` is how many requests it takes at once; `complete` is then called from as many threads.
    """

    identity: str
    concurrency: int

    def complete(self, request: Request) -> Reply:
        """The reply; raises NoReplyError when there is none, EvaluationError when there can be none (no server)."""
        ...
