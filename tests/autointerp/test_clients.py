"""The protocol of clients: replies on disk, no request paid twice, failures counted."""

import threading

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from atlas.autointerp.clients import CachedClient, ClientFiles, WordsClient, complete_all, make_client
from atlas.autointerp.intruder_scorers import read_pick
from atlas.autointerp.local_model import LocalModelClient
from atlas.autointerp.prompts import read_answers
from atlas.autointerp.protocol import NoReplyError, Reply, Request
from atlas.config.autointerp import LabelClient
from atlas.errors import EvaluationError
from atlas.models.prepare import prepare_model
from tiny import describe_model, tiny_bert, tiny_llama, tiny_tokenizer


class Counting:
    """Answers with the request's own text; raises where it is told to."""

    concurrency = 4

    def __init__(self, identity: str = "counting", fails=(), breaks=()):
        self.identity, self.fails, self.breaks = identity, fails, breaks
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Reply:
        text = request.messages[-1][1]
        with self._lock:
            self.asked.append(text)
        if text in self.fails:
            raise NoReplyError(text)
        if text in self.breaks:
            raise EvaluationError("the server is down")
        return Reply(text.upper(), (0.25, 1.0), 3, 1)


def ask(text: str, **fields) -> Request:
    return Request((("user", text),), 10, **fields)


def test_a_reply_is_paid_once(tmp_path):
    client = Counting()
    first = CachedClient(client, tmp_path).complete(ask("a"))
    again = CachedClient(client, tmp_path).complete(ask("a"))
    assert first == again == Reply("A", (0.25, 1.0), 3, 1)
    assert client.asked == ["a"]
    assert CachedClient(client, tmp_path).known(ask("a"))


@pytest.mark.parametrize("other", [ask("a", seed=1), ask("a", temperature=0.5), ask("a", choices=("1", "0")), ask("b")])
def test_another_request_or_client_has_another_reply(tmp_path, other):
    cached = CachedClient(Counting(), tmp_path)
    assert cached.path(other) != cached.path(ask("a"))
    assert CachedClient(Counting("other model"), tmp_path).path(ask("a")) != cached.path(ask("a"))


def test_replies_keep_their_order_and_failures_their_place(tmp_path):
    client = Counting(fails=("c",))
    cached = CachedClient(client, tmp_path)
    requests = [ask(text) for text in "abcdefgh"]
    replies = complete_all(cached, requests, "test")
    assert [reply and reply.text for reply in replies] == ["A", "B", None, *"DEFGH"]
    complete_all(cached, requests, "test")
    assert sorted(client.asked) == sorted("abcdefgh" + "c")


def test_a_run_that_ends_early_goes_on_where_it_was(tmp_path):
    client = Counting(breaks=("d",))
    client.concurrency = 1
    with pytest.raises(EvaluationError, match="the server is down"):
        complete_all(CachedClient(client, tmp_path), [ask(text) for text in "abcd"], "test")
    client.breaks = ()
    complete_all(CachedClient(client, tmp_path), [ask(text) for text in "abcd"], "test")
    assert [client.asked.count(text) for text in "abcd"] == [1, 1, 1, 2]


def test_a_damaged_reply_is_named(tmp_path):
    cached = CachedClient(Counting(), tmp_path)
    cached.complete(ask("a"))
    cached.path(ask("a")).write_text('{"text": ')
    with pytest.raises(EvaluationError, match=r"\.json: is no kept reply .* delete this file and run again"):
        cached.complete(ask("a"))


def test_the_client_without_a_language_model():
    client = WordsClient()
    assert client.complete(ask("a <<river>> b\nthe <<River>> and <<sea>>")).text == "river"
    with pytest.raises(NoReplyError):
        client.complete(ask("nothing here"))
    asked = ask("Label: the river\n\nExample 1: a river\nExample 2: a sea", choices=("1", "0"), n_answers=2)
    assert client.complete(asked) == Reply("[1, 0]", (1.0, 0.0))


def test_configured_clients(tmp_path):
    assert make_client(None, ClientFiles(tmp_path)) is None
    assert isinstance(make_client(LabelClient(kind="words"), ClientFiles(tmp_path)), CachedClient)
    with pytest.raises(ValidationError, match="'words' has none, the others need one"):
        LabelClient(kind="transformers")


def test_a_model_in_this_process_answers_in_the_asked_form(tmp_path):
    spec = describe_model(tiny_llama(tmp_path / "llama"), 4)
    prepare_model("tiny", spec, None, tmp_path / "model", tmp_path / "lock")
    files = ClientFiles(tmp_path / "replies", tmp_path / "model", torch.device("cpu"))
    client = make_client(LabelClient(kind="transformers", model="tiny"), files)
    chosen = client.complete(ask("Label: x\n\nExample 1: y", choices=("1", "0"), n_answers=3))
    assert len(chosen.probabilities) == 3
    assert all(0 < value < 1 for value in chosen.probabilities)
    assert read_answers(Reply(chosen.text), 3) == pytest.approx(np.round(chosen.probabilities))
    picked = client.complete(ask("Example 1: y", choices=("1", "2", "3", "4", "5"), n_answers=1))
    assert 0 <= read_pick(picked, 5) < 5
    written = client.complete(ask("a"))
    assert written.probabilities is None
    assert written.reply_tokens <= 10
    model = client.client.loaded
    prompt = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Label: x\n\nExample 1: y"}], tokenize=False, add_generation_prompt=True
    )
    ids = model.tokenizer(f"{prompt}[{chosen.text[1]}, ", add_special_tokens=False, return_tensors="pt")["input_ids"]
    logits = model.model(ids).logits[0, -1].float()
    one, zero = (model.tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in "10")
    expected = logits[[one, zero]].softmax(0)[0].item()
    assert chosen.probabilities[1] == pytest.approx(expected, abs=1e-5)


def test_prompts_do_not_depend_on_the_day(tmp_path):
    source = tiny_llama(tmp_path / "llama")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    tokenizer.save_pretrained(source)
    prepare_model("tiny", describe_model(source, 4), None, tmp_path / "model", tmp_path / "lock")
    client = LocalModelClient(tmp_path / "model", torch.device("cpu"))
    prompts = []
    client._ids = lambda text: prompts.append(text) or torch.ones(1, 4, dtype=torch.int64)
    client._write = lambda ids, request: None
    client.complete(ask("a"))
    assert prompts == ["26 Jul 2024<|user|>a</s>"]
    assert client.identity.endswith(" 2024-07-26")  # replies that are kept are of this day


def test_a_model_that_cannot_chat_is_refused(tmp_path):
    prepare_model(
        "bert",
        describe_model(tiny_bert(tmp_path / "bert"), 3, objective="embedding"),
        None,
        *[tmp_path / "model", tmp_path / "lock"],
    )
    files = ClientFiles(tmp_path, tmp_path / "model", torch.device("cpu"))
    with pytest.raises(EvaluationError, match=r"model of objective .* cannot answer prompts"):
        make_client(LabelClient(kind="transformers", model="bert"), files)
