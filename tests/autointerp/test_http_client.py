"""A loopback server speaks the protocol, and fails in every way that servers do."""

import logging
import math
import threading

import pytest
from loopback_server import Server, said
from pydantic import ValidationError

from atlas.autointerp.clients import CachedClient, ClientFiles, complete_all, make_client
from atlas.autointerp.http_client import read_reply
from atlas.autointerp.protocol import Request
from atlas.config.autointerp import LabelClient
from atlas.errors import EvaluationError

KEY = "sk-very-secret"
ASK = Request((("system", "Be brief."), ("user", "héllo")), 10, seed=3)
CHOOSE = Request((("user", "which?"),), 20, choices=("1", "0"), n_answers=2)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


def test_the_request_is_that_of_the_protocol(server):
    reply = server.client().complete(ASK)
    assert (reply.text, reply.probabilities, reply.prompt_tokens, reply.reply_tokens) == ("label", None, 7, 2)
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "héllo"}],
        "max_tokens": 10,
        "temperature": 0.0,
        "seed": 3,
    }
    assert "Authorization" not in server.headers[0]


def test_the_key_goes_to_the_server_and_nowhere_else(server, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("ATLAS_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server.script = [(503, ""), said("label"), (401, f"bad key {KEY}")]
    client = server.client(api_key_env="ATLAS_TEST_KEY")
    CachedClient(client, tmp_path).complete(ASK)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    with pytest.raises(EvaluationError, match="the key in ATLAS_TEST_KEY is refused") as error:
        client.complete(ASK)
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert KEY not in str(error.value) + caplog.text + written + client.identity


def test_a_refusal_that_is_cut_short_shows_no_part_of_the_key(server, monkeypatch):
    monkeypatch.setenv("ATLAS_TEST_KEY", KEY)
    server.script = [(403, "x" * 290 + KEY)]
    with pytest.raises(EvaluationError) as error:
        server.client(api_key_env="ATLAS_TEST_KEY").complete(ASK)
    assert KEY[:5] not in str(error.value)


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(server, monkeypatch):
    monkeypatch.setenv("ATLAS_TEST_KEY", "sk-sécret")
    with pytest.raises(EvaluationError, match="ATLAS_TEST_KEY has characters that no header") as error:
        server.client(api_key_env="ATLAS_TEST_KEY")
    assert "cret" not in str(error.value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named_before_anything_is_asked(server, monkeypatch, value):
    monkeypatch.delenv("ATLAS_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ATLAS_TEST_KEY", value)
    with pytest.raises(EvaluationError, match="api_key_env is 'ATLAS_TEST_KEY', but the environment has no"):
        server.client(api_key_env="ATLAS_TEST_KEY")
    assert not server.asked


@pytest.mark.parametrize("fault", [(429, "", {"Retry-After": "0.01"}), (500, "oops"), (503, ""), ("hang up", "")])
def test_what_passes_is_tried_again(server, fault):
    server.script = [fault, fault, said("label")]
    assert server.client(retries=2).complete(ASK).text == "label"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "garbage", ["not json", "{}", '{"choices": []}', said("  ")[1], '{"choices": [{"message": 1}]}']
)
def test_garbage_is_tried_again_and_then_counted_as_no_reply(server, garbage, tmp_path):
    server.script = [(200, garbage)]
    client = CachedClient(server.client(retries=2), tmp_path)
    assert complete_all(client, [ASK], "test") == [None]
    assert len(server.asked) == 3
    assert not list(tmp_path.rglob("*.json"))


def test_a_server_that_keeps_failing_stops_the_run(server):
    server.script = [(500, "oops")]
    with pytest.raises(EvaluationError, match=r"status 500, 3 times in a row; start the server .* replies so far"):
        server.client(retries=2).complete(ASK)


def test_a_server_that_is_down_stops_the_run(server):
    client = server.client(retries=1)
    server.stop()
    with pytest.raises(EvaluationError, match=r"127\.0\.0\.1.*ConnectionError, 2 times in a row"):
        client.complete(ASK)


def test_a_server_that_says_nothing_is_not_waited_for(server):
    server.barrier = threading.Barrier(2)
    with pytest.raises(EvaluationError, match="ReadTimeout, 1 times"):
        server.client(retries=0, timeout_s=0.2).complete(ASK)
    server.barrier.abort()


@pytest.mark.parametrize(("status", "text"), [(404, "no model m"), (400, "bad\x1b[31m"), (302, "")])
def test_a_refusal_is_not_repeated(server, status, text):
    server.script = [(status, text)]
    with pytest.raises(EvaluationError, match=rf"refused with status {status} .*; correct autointerp\.client") as error:
        server.client().complete(ASK)
    assert len(server.asked) == 1
    assert "\x1b" not in str(error.value)


def test_as_many_requests_at_once_as_configured(server, tmp_path):
    """Four requests wait for one another: with fewer at once the server would never answer."""
    server.barrier = threading.Barrier(4)
    asked = [Request((("user", str(number)),), 5) for number in range(8)]
    replies = complete_all(CachedClient(server.client(concurrency=4), tmp_path), asked, "test")
    assert [reply.text for reply in replies] == ["label"] * 8
    assert server.most == 4


def test_no_reply_is_paid_twice(server, tmp_path):
    asked = [Request((("user", str(number)),), 5) for number in range(6)]
    server.script = [said("a")] * 4 + [(404, "gone")]
    with pytest.raises(EvaluationError):
        complete_all(CachedClient(server.client(concurrency=1), tmp_path), asked, "test")
    server.script = [said("b")]
    replies = complete_all(CachedClient(server.client(concurrency=1), tmp_path), asked, "test")
    assert [reply.text for reply in replies] == ["a"] * 4 + ["b"] * 2
    contents = [body["messages"][0]["content"] for _, body in server.asked]
    # The refused request is asked again, perhaps the one that was already on its way too, but none that has a reply.
    assert [contents.count(name) for name in "0123"] == [1, 1, 1, 1]


def test_structured_answers_are_asked_for_by_a_schema(server):
    plain, client = server.client(), server.client(structured=True)
    client.complete(CHOOSE)
    client.complete(ASK)
    plain.complete(CHOOSE)
    formats = [body.get("response_format") for _, body in server.asked]
    assert formats[0]["json_schema"]["schema"] == {
        "type": "array",
        "items": {"type": "integer", "enum": [1, 0]},
        "minItems": 2,
        "maxItems": 2,
    }
    assert formats[1:] == [None, None]  # a label has no form
    assert plain.identity != client.identity


def token(text, **chances):
    top = [{"token": name.strip("_"), "logprob": math.log(chance)} for name, chance in chances.items()]
    return {"token": text, "logprob": -0.1, "top_logprobs": top}


def test_probabilities_come_from_the_tokens_that_answer(server):
    tokens = [token("["), token("1", _1=0.6, _0=0.2, x=0.2), token(","), token(" 0", _0=0.9, _1=0.1), token("]")]
    server.script = [said("[1, 0]", {"content": tokens})]
    reply = server.client().complete(CHOOSE)
    assert reply.probabilities == pytest.approx((0.75, 0.1))
    assert server.asked[0][1]["logprobs"] is True


@pytest.mark.parametrize("content", [None, [], [token("1", _1=1.0)], [token("1", x=1.0), token("0", x=1.0)]])
def test_without_a_probability_per_answer_there_are_none(content):
    _, answer = said("[1, 0]", {"content": content})
    assert read_reply(answer.encode(), CHOOSE).probabilities is None


def test_the_configured_kind_makes_this_client(server, tmp_path):
    spec = LabelClient(kind="openai", model="m", base_url=server.url)
    assert make_client(spec, ClientFiles(tmp_path)).complete(ASK).text == "label"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "openai", "model": "m"}, "'openai' needs it"),
        ({"kind": "openai", "base_url": "http://h/v1"}, "the others need one"),
        ({"kind": "openai", "model": "m", "base_url": "http://user:secret@h/v1"}, "base_url"),
        ({"kind": "openai", "model": "m", "base_url": "ftp://h"}, "base_url"),
        ({"kind": "openai", "model": "m", "base_url": "http://h", "api_key_env": "sk-a-key"}, "api_key_env"),
        ({"kind": "transformers", "model": "m", "api_key_env": "KEY"}, "only 'openai' sends a key"),
    ],
)
def test_a_section_that_does_not_fit_its_kind_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        LabelClient(**fields)
