"""Clients that answer prompts: one small protocol, answers kept on disk, many questions at once.

A client answers a `Request` by a `Reply` or raises `NoReplyError`; explainers and scorers know nothing else of it. A
kind of client is a function from its config section to a `Client`, registered in `CLIENTS`.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlas.autointerp.protocol import Client, NoReplyError, Reply, Request
from atlas.config.autointerp import LabelClient
from atlas.errors import EvaluationError
from atlas.files import read_json, sha256_strings, write_json
from atlas.progress import progress

log = logging.getLogger(__name__)

_REMEDY = "delete this file and run again"
_CHARACTERS = 4  # of a token of English, roughly: for the estimate before a run


class CachedClient:
    """Replies of another client, each kept in a file named by the hash of identity and request.

    A killed run asks again only what has no file yet. A request without reply is not kept: it is asked again.
    """

    def __init__(self, client: Client, folder: Path):
        self.client, self.folder = client, Path(folder)
        self.identity, self.concurrency = client.identity, client.concurrency

    def path(self, request: Request) -> Path:
        """Return where the reply to a request is kept."""
        key = sha256_strings([self.identity, json.dumps(asdict(request), sort_keys=True)])
        return self.folder / key[:2] / f"{key}.json"

    def known(self, request: Request) -> bool:
        """Return whether the reply is kept already: what is not has yet to be paid."""
        return self.path(request).is_file()

    def complete(self, request: Request) -> Reply:
        """From its file, or from the client."""
        path = self.path(request)
        if path.is_file():
            return _read(path)
        reply = self.client.complete(request)
        write_json(path, asdict(reply))
        return reply


def _read(path: Path) -> Reply:
    try:
        known = read_json(path, _REMEDY)
        if known["probabilities"] is not None:
            known["probabilities"] = tuple(map(float, known["probabilities"]))
        return Reply(**known)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path}: is no kept reply ({error!r}); {_REMEDY}") from error


def complete_all(client: Client, requests: Sequence[Request], label: str) -> list[Reply | None]:
    """Replies in the order of the requests, None where there is none; as many at once as the client takes.

    Equal requests are asked once.
    """

    def ask(request: Request) -> Reply | None:
        try:
            return client.complete(request)
        except NoReplyError:
            return None

    distinct = list(dict.fromkeys(requests))
    kept = sum(client.known(request) for request in distinct) if isinstance(client, CachedClient) else 0
    tokens = sum(len(content) for request in distinct for _, content in request.messages) // _CHARACTERS
    log.info("%s: %s requests, about %s tokens; %s kept from before", label, len(distinct), tokens, kept)
    replies: dict[Request, Reply | None] = {}
    with ThreadPoolExecutor(client.concurrency) as pool, progress(len(distinct), label, unit="reply") as shown:
        try:
            for request, reply in zip(distinct, pool.map(ask, distinct), strict=True):
                replies[request] = reply
                shown.update(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _warn_of_silence(list(replies.values()), label)
    return [replies[request] for request in requests]


def _warn_of_silence(replies: Sequence[Reply | None], label: str) -> None:
    """Say how many replies are none, or end at their limit: a reasoning model may have given nothing but thought."""
    none, cut = sum(reply is None for reply in replies), sum(reply is not None and reply.cut for reply in replies)
    if none or cut:
        log.warning(
            "%s: of %d requests %d have no reply, and %d replies end at their limit of tokens; such a reply is no "
            "answer unless it begins with one. For a model that thinks first, raise autointerp.client.reasoning_tokens",
            label,
            len(replies),
            none,
            cut,
        )


class WordsClient:
    """No language model: a fixed rule over words, so that the whole way can be tested.

    Asked for a label it names the word that is highlighted (``<<word>>``) most often; asked for choices it gives the
    first choice for each numbered example (``Example 1: …``) in which a word of the prompt's last "Label:" occurs;
    asked to choose one example, it takes that whose highlighted words are in the fewest others.
    """

    identity, concurrency = "words-1", 1

    def complete(self, request: Request) -> Reply:
        """The reply; the same request always has the same."""
        text = request.messages[-1][1]
        choices = request.choices
        if len(choices) > 2 and request.n_answers == 1:
            return Reply(f"[{choices[_least_shared(text)]}]")
        if not choices:
            words = Counter(word.strip().lower() for word in re.findall(r"<<(.*?)>>", text, re.DOTALL))
            if not words:
                raise NoReplyError("nothing is highlighted")
            return Reply(min(words, key=lambda word: (-words[word], word)))
        label = set(re.findall(r"\w+", text.rsplit("Label:", 1)[-1].split("\n", 1)[0].lower()))
        examples = _examples(text)
        found = [bool(label & set(re.findall(r"\w+", example.lower()))) for example in examples]
        answers = [choices[0 if each else 1] for each in found]
        return Reply(f"[{', '.join(answers)}]", tuple(float(each) for each in found))


def _examples(text: str) -> list[str]:
    return re.split(r"^Example \d+: ", text, flags=re.MULTILINE)[1:]


def _least_shared(text: str) -> int:
    """Place of the example whose highlighted words are highlighted in the fewest others; the first of equals."""
    marked = [set(" ".join(re.findall(r"<<(.*?)>>", each)).lower().split()) for each in _examples(text)]
    shared = [sum(bool(own & other) for other in marked) - bool(own) for own in marked]
    return shared.index(min(shared))


@dataclass(frozen=True)
class ClientFiles:
    """Folder of kept replies, a prepared model and its device: what a client may need besides its section."""

    replies: Path
    model: Path | None = None
    device: Any = None


def _words(spec: LabelClient, files: ClientFiles) -> Client:
    return WordsClient()


def _transformers(spec: LabelClient, files: ClientFiles) -> Client:
    from atlas.autointerp.local_model import LocalModelClient  # imports this module

    assert files.model is not None  # the rules give one to a client that runs a model
    return LocalModelClient(files.model, files.device)


def _openai(spec: LabelClient, files: ClientFiles) -> Client:
    from atlas.autointerp.http_client import HttpClient  # imports this module

    return HttpClient(spec)


CLIENTS: dict[str, Callable[[LabelClient, ClientFiles], Client]] = {
    "words": _words,
    "transformers": _transformers,
    "openai": _openai,
}


def make_client(spec: LabelClient | None, files: ClientFiles) -> Client | None:
    """The configured client with its replies kept; None when none is configured."""
    return None if spec is None else CachedClient(CLIENTS[spec.kind](spec, files), files.replies)
