"""A client for any server with OpenAI's chat completions: llama.cpp, vLLM, a hosted one.

What may pass (no connection, a time limit, 408, 429, 5xx, a garbled answer) is tried again with growing pauses. What
will not (a refused key, an unknown model) stops the job: the replies so far are kept, and the next call goes on there.
The loop is our own: urllib3's retries do not read an answer's text, and tenacity's take as much code for the two faults
that end the tries differently.

A server that refuses `max_tokens` is asked with `max_completion_tokens`, which means the same. Other fields that some
servers refuse change the replies: the error names the key that leaves them out.
"""

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import requests

from atlas.autointerp.protocol import NoReplyError, Reply, Request
from atlas.autointerp.reasoning import without_thought
from atlas.autointerp.safe import printable
from atlas.config.autointerp import LabelClient
from atlas.errors import EvaluationError

log = logging.getLogger(__name__)

_PASSING = {408, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE = 60.0
_TOP_LOGPROBS = 5
_SHOWN = 300  # characters of a server's message
_LIMIT, _OTHER_LIMIT = "max_tokens", "max_completion_tokens"
# Status of a request whose fields a server refuses; 403 too, for what a key may not ask for.
_REFUSED_FIELD = {400, 403, 404, 422, 501}
# What a server may name in a refusal, and what then has to be left out.
_FIELDS = {"temperature": "temperature", "seed": "seed", "logprobs": "logprobs", "top_logprobs": "logprobs"}
_CONSEQUENCE = {
    "temperature": "it then samples as it likes, and a second run gives other replies",
    "seed": "nothing changes at temperature 0",
    "logprobs": "answers are then 0 or 1, without probabilities",
}
# Where servers put the thought of a reasoning model (DeepSeek and llama.cpp; OpenRouter and vLLM; Ollama).
_THOUGHT = ("reasoning_content", "reasoning", "thinking")


class HttpClient:
    """Asks ``<base_url>/chat/completions``. The key is read from the environment and appears in no message or file."""

    def __init__(self, spec: LabelClient, first_pause: float = 1.0):
        self.identity = f"openai {spec.base_url} {spec.model}" + (" structured" if spec.structured else "")
        # Only where they are set: replies of before these keys are kept under the name that they had.
        if spec.omit:
            self.identity += f" without {','.join(sorted(spec.omit))}"
        if spec.reasoning_tokens:
            self.identity += f" reasoning {spec.reasoning_tokens}"
        self._limit = _LIMIT
        self.concurrency = spec.concurrency
        self._spec, self._first_pause = spec, first_pause
        assert spec.base_url is not None  # the section of such a client has one
        self._url = f"{spec.base_url.rstrip('/')}/chat/completions"
        self._key = _read_key(spec.api_key_env)
        self._thread = threading.local()

    def complete(self, request: Request) -> Reply:
        """The reply.

        Raises NoReplyError when the server's answers held none after all tries, EvaluationError when it cannot be
        reached, keeps failing, or refuses.
        """
        garbled, fault = False, ""
        for number in range(self._spec.retries + 1):
            pause = min(_LONGEST_PAUSE, self._first_pause * 2**number)
            try:
                answer = self._ask(request)
            except requests.RequestException as error:
                # Its text may hold the address, never the headers.
                garbled, fault = False, type(error).__name__
            else:
                if answer.status_code == 200:
                    if (reply := read_reply(answer.content, request)) is not None:
                        return reply
                    garbled, fault = True, "an answer without a reply"
                elif answer.status_code in _PASSING:
                    garbled, fault = False, f"status {answer.status_code}"
                    pause = max(pause, _asked_pause(answer.headers.get("Retry-After")))
                else:
                    raise EvaluationError(self._refusal(answer))
            if number < self._spec.retries:
                log.info("%s: %s; again in %.3g s", self._url, fault, pause)
                time.sleep(pause)
        if garbled:
            raise NoReplyError(fault)
        raise EvaluationError(
            f"{self._url}: {fault}, {self._spec.retries + 1} times in a row; start the server or correct "
            "autointerp.client.base_url, then run again: replies so far are kept"
        )

    def _ask(self, request: Request) -> requests.Response:
        """One answer; asked once more, by the limit's other name, where the server refuses the one it was given."""
        limit = self._limit
        answer = self._post(request, limit)
        if limit != _LIMIT or answer.status_code not in _REFUSED_FIELD or not _names(answer.text, _LIMIT):
            return answer
        other = self._post(request, _OTHER_LIMIT)
        if other.status_code == 200:
            log.info("%s: refuses %s, and takes %s", self._url, _LIMIT, _OTHER_LIMIT)
            self._limit = _OTHER_LIMIT
        # A server that knows the other name no better has said before what is wrong.
        unknown = other.status_code in _REFUSED_FIELD and _names(other.text, _OTHER_LIMIT)
        return answer if unknown and _OTHER_LIMIT not in answer.text else other

    def _post(self, request: Request, limit: str) -> requests.Response:
        return self._session().post(
            self._url,
            json=_body(self._spec, request, limit),
            timeout=self._spec.timeout_s,
            allow_redirects=False,
        )

    def _session(self) -> requests.Session:
        # One per thread: a session's pool of connections is not made for sharing.
        if not hasattr(self._thread, "session"):
            session = requests.Session()
            session.trust_env = False  # no key of a .netrc goes out unasked
            if self._key:
                session.headers["Authorization"] = f"Bearer {self._key}"
            self._thread.session = session
        return self._thread.session

    def _refusal(self, answer: requests.Response) -> str:
        text = answer.text.replace(self._key, "…") if self._key else answer.text
        said = printable(text)[:_SHOWN]
        remedy = "correct autointerp.client"
        fields = [
            _FIELDS[name] for name in _FIELDS if _names(answer.text, name) and _FIELDS[name] not in self._spec.omit
        ]
        if answer.status_code in _REFUSED_FIELD and fields:
            remedy = f"the server refuses {fields[0]!r}: add it to autointerp.client.omit ({_CONSEQUENCE[fields[0]]})"
        elif answer.status_code in _REFUSED_FIELD and self._spec.structured and _names(answer.text, "response_format"):
            remedy = "the server refuses 'response_format': set autointerp.client.structured to false"
        elif answer.status_code in (401, 403):
            name = self._spec.api_key_env
            remedy = f"the key in {name} is refused" if name else "name the variable of a key in api_key_env"
        return f"{self._url}: refused with status {answer.status_code} ({said}); {remedy}"


def read_reply(content: bytes, request: Request) -> Reply | None:
    """The reply in a server's answer; None when there is none, or it has another form than that of the protocol.

    An answer that is nothing but thought, in a field of its own, is a reply without text.
    """
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = _text(choice["message"].get("content"))
        cut = choice.get("finish_reason") == "length"
        usage = answer.get("usage") or {}
        spent = (usage.get(key) for key in ("prompt_tokens", "completion_tokens"))
        read, written = (n if isinstance(n, int) else None for n in spent)
        if not text.strip() and not cut and not any(choice["message"].get(name) for name in _THOUGHT):
            return None
        tokens = (choice.get("logprobs") or {}).get("content") or []
        known = _probabilities(_of_answer(tokens, text), request)
        return Reply(text, known, read, written, cut)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _text(content: Any) -> str:
    """The text of a message: as it is, or of the parts of a list that are no thought (Mistral's form)."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content of type {type(content).__name__}")
    return content or ""


def _of_answer(tokens: Sequence[dict[str, Any]], text: str) -> Sequence[dict[str, Any]]:
    """The tokens that wrote the answer: those of a thought come before it, and hold numbers too.

    None where the tokens do not spell the answer: their probabilities are then of something else.
    """
    answer, written = without_thought(text).strip(), [token["token"] for token in tokens]
    start = "".join(written).rfind(answer) if answer else -1
    if start < 0:
        return []
    ends = list(accumulate(map(len, written)))
    return [token for token, end in zip(tokens, ends, strict=True) if start < end <= start + len(answer)]


def _names(message: str, field: str) -> bool:
    """Return whether a server's refusal is of a field of the request: the one it names, or else one that its text
    has.
    """
    try:
        named = json.loads(message)["error"]["param"]
    except (ValueError, KeyError, TypeError):
        named = None
    return re.search(rf"\b{field}\b", named if isinstance(named, str) and named else message) is not None


def _body(spec: LabelClient, request: Request, limit: str) -> dict[str, Any]:
    body = {
        "model": spec.model,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        limit: request.max_tokens + spec.reasoning_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    if request.choices:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if spec.structured:
            body["response_format"] = {"type": "json_schema", "json_schema": _schema(request)}
    return {name: value for name, value in body.items() if _FIELDS.get(name) not in spec.omit}


def _schema(request: Request) -> dict[str, Any]:
    """A list of as many answers as there are examples, each one of the choices."""
    count = {"minItems": request.n_answers, "maxItems": request.n_answers}
    items = {"type": "integer", "enum": [int(choice) for choice in request.choices]}
    return {"name": "answers", "strict": True, "schema": {"type": "array", "items": items, **count}}


def _probabilities(tokens: Sequence[dict[str, Any]], request: Request) -> tuple[float, ...] | None:
    """P(first choice) against the others at every token that is a choice; None unless there is one per answer."""
    found = []
    for token in tokens:
        if token["token"].strip() not in request.choices:
            continue
        weights = dict.fromkeys(request.choices, 0.0)
        for each in token["top_logprobs"] or [token]:
            if (name := each["token"].strip()) in weights:
                weights[name] += math.exp(min(0.0, each["logprob"]))
        total = sum(weights.values())
        if not total:
            return None
        found.append(weights[request.choices[0]] / total)
    return tuple(found) if found and len(found) == request.n_answers else None


def _read_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise EvaluationError(
            f"autointerp.client.api_key_env is {name!r}, but the environment has no such variable, or it is empty: "
            f"export {name}=… before the run"
        )
    if not (key.isascii() and key.isprintable()):
        raise EvaluationError(f"the key in {name} has characters that no header can hold; export it anew")
    return key


def _asked_pause(value: str | None) -> float:
    """Seconds of a Retry-After header; a date, which it may also be, is not waited for."""
    try:
        return min(_LONGEST_PAUSE, max(0.0, float(value or 0)))
    except ValueError:
        return 0.0
