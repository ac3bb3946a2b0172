"""A client for any server with OpenAI's chat completions: llama.cpp, vLLM, a hosted one.

What may pass (no connection, a time limit, 408, 429, 5xx, a garbled answer) is tried again with growing pauses. What
will not (a refused key, an unknown model) stops the job: the replies so far are kept, and the next call goes on there.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import requests

from atlas.autointerp.clients import NoReplyError, Reply, Request
from atlas.autointerp.safe import printable
from atlas.config.autointerp import LabelClient
from atlas.errors import EvaluationError

log = logging.getLogger(__name__)

_PASSING = {408, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE = 60.0
_TOP_LOGPROBS = 5
_SHOWN = 300  # characters of a server's message


class HttpClient:
    """Asks ``<base_url>/chat/completions``. The key is read from the environment and appears in no message or file."""

    def __init__(self, spec: LabelClient, first_pause: float = 1.0):
        self.identity = f"openai {spec.base_url} {spec.model}" + (" structured" if spec.structured else "")
        self.concurrency = spec.concurrency
        self._spec, self._first_pause = spec, first_pause
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
                answer = self._session().post(
                    self._url,
                    json=_body(self._spec, request),
                    timeout=self._spec.timeout_s,
                    allow_redirects=False,
                )
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
        if answer.status_code in (401, 403):
            name = self._spec.api_key_env
            remedy = f"the key in {name} is refused" if name else "name the variable of a key in api_key_env"
        return f"{self._url}: refused with status {answer.status_code} ({said}); {remedy}"


def read_reply(content: bytes, request: Request) -> Reply | None:
    """The reply in a server's answer; None when there is none, or it has another form than that of the protocol."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        usage = answer.get("usage") or {}
        spent = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
        if not isinstance(text, str) or not text.strip():
            return None
        tokens = (choice.get("logprobs") or {}).get("content") or []
        return Reply(text, _probabilities(tokens, request), *(n if isinstance(n, int) else None for n in spent))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _body(spec: LabelClient, request: Request) -> dict[str, Any]:
    body = {
        "model": spec.model,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    if request.choices:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if spec.structured:
            body["response_format"] = {"type": "json_schema", "json_schema": _schema(request)}
    return body


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
