"""Reasoning models: a thought is no label and no answer, and what their servers refuse is asked for otherwise."""

import json
import math

import numpy as np
import pytest
import torch
from loopback_server import Server, said
from pydantic import ValidationError
from transformers import AutoTokenizer

from atlas.autointerp.clients import CachedClient, ClientFiles, complete_all, make_client
from atlas.autointerp.cost import cost
from atlas.autointerp.delphi import _answer
from atlas.autointerp.http_client import read_reply
from atlas.autointerp.intruder_scorers import read_pick
from atlas.autointerp.prompts import read_answers, read_label
from atlas.autointerp.protocol import Reply, Request
from atlas.autointerp.reasoning import end_of_open_thought, has_thought, sentence_of, without_thought
from atlas.config.autointerp import Autointerp, LabelClient
from atlas.errors import EvaluationError
from atlas.models.prepare import prepare_model
from tiny import describe_model, tiny_llama

ASK = Request((("user", "label it"),), 32)
CHOOSE = Request((("user", "which?"),), 20, choices=("1", "0"), n_answers=2)
THOUGHT = "<think>\nThe words are cats [1, 1].\nMaybe 3.\n</think>\n\n"


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("cats", "cats"),
        (f"{THOUGHT}cats", "cats"),
        ("so it is cats\n</think>\n\ncats", "cats"),  # the template has opened it
        ("<think>\n\n</think>\n\ncats", "cats"),
        ("<think>one</think>two<think>\nthree</think>cats", "cats"),
        ("<thinking>x</thinking><answer>cats</answer>", "cats"),
        ("<seed:think>x</seed:think>cats", "cats"),
        ("[THINK]x[/THINK]cats", "cats"),
        ("◁think▷x◁/think▷cats", "cats"),
        ("<|begin_of_thought|>x<|end_of_thought|>\n<|begin_of_solution|>cats<|end_of_solution|>", "cats"),
        ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>cats<|END_RESPONSE|>", "cats"),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>cats<|return|>", "cats"),
        ("<|channel|>analysis<|message|>it may be", ""),
        ("<think>\nit may be", ""),
        (f"{THOUGHT}<think>\nand again", ""),
        ("the closing </think> tag", ""),  # a label, or a thought: which is not known
        ('the tag "<think>"', 'the tag "<think>"'),
    ],
)
def test_the_answer_is_what_follows_the_thought(text, answer):
    assert without_thought(text) == answer
    assert has_thought(text) == (text != answer)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        (Reply(f"{THOUGHT}cats and dogs"), "cats and dogs"),
        (Reply("<think>\ncats"), None),
        (Reply("cats", cut=True), None),  # perhaps a thought that a template has opened
        (None, None),
    ],
)
def test_a_thought_is_no_label(reply, label):
    assert read_label(sentence_of(reply)) == label
    assert _answer(reply, 0) == {"text": label, "probabilities": None}


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        (Reply(f"{THOUGHT}[0, 1]"), [0, 1]),
        (Reply(f"{THOUGHT}[0, 1]", (0.9, 0.8)), [0, 1]),  # probabilities of the numbers in the thought
        (Reply(f"{THOUGHT}[0, 1]", (0.3, 0.8)), [0.3, 0.8]),
        (Reply("<think>\nlike [1, 0]"), None),
        (Reply("So perhaps [1, 0], since", cut=True), None),
        (Reply("[1, 0]\n\nExplanation: the", cut=True), [1, 0]),
    ],
)
def test_numbers_in_a_thought_are_no_answers(reply, answers):
    np.testing.assert_array_equal(read_answers(reply, 2), [np.nan] * 2 if answers is None else answers)
    told = _answer(reply, 2)
    assert "think" not in (told["text"] or "")
    assert (told["text"] is None) == (answers is None)
    assert told["probabilities"] in (None, answers)


@pytest.mark.parametrize(
    ("reply", "pick"),
    [
        (Reply("<think>\nnot [2]\n</think>\n[4]"), 3),
        (Reply("<think>\n[2]"), -1),
        (Reply("It is [2], or", cut=True), -1),
        (Reply("[2]", cut=True), 1),
    ],
)
def test_a_number_in_a_thought_is_no_choice(reply, pick):
    assert read_pick(reply, 5) == pick


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thought_in_a_field_of_its_own_is_not_read(field):
    _, answer = said("cats", **{field: "it may be dogs"})
    assert read_reply(answer.encode(), ASK) == Reply("cats", None, 7, 2)
    _, answer = said(None, finish_reason="length", **{field: "it may be dogs"})
    assert read_reply(answer.encode(), ASK) == Reply("", None, 7, 2, cut=True)
    _, answer = said(None, **{field: "it may be dogs"})
    assert read_reply(answer.encode(), ASK) == Reply("", None, 7, 2)


def test_text_comes_from_the_parts_of_a_message_that_are_no_thought():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "dogs"}]}, {"type": "text", "text": "cats"}]
    _, answer = said(parts)
    assert read_reply(answer.encode(), ASK).text == "cats"


def test_a_reply_that_is_nothing_but_thought_is_asked_for_once_and_said(server, tmp_path, caplog):
    server.script = [said(None, finish_reason="length", reasoning_content="dogs")]
    client = CachedClient(server.client(retries=5), tmp_path)
    (reply,) = complete_all(client, [ASK], "explain")
    assert read_label(sentence_of(reply)) is None
    assert len(server.asked) == 1
    assert "1 replies end at their limit" in caplog.text
    assert "autointerp.client.reasoning_tokens" in caplog.text
    assert complete_all(client, [ASK], "explain") == [reply]
    assert len(server.asked) == 1


def token(text, one=0.5):
    top = [{"token": name, "logprob": math.log(p)} for name, p in (("1", one), ("0", 1 - one))]
    return {"token": text, "logprob": -0.1, "top_logprobs": top}


@pytest.mark.parametrize("in_content", [True, False])
def test_probabilities_are_of_the_answer_and_not_of_numbers_in_the_thought(in_content):
    """A parser of the server takes the thought out of the text, and leaves its tokens among the probabilities."""
    thought = [token(text, 0.99) for text in ("<think>", "\n", "1", " or ", "0", "\n", "</think>", "\n")]
    answer = [token("["), token("0", 0.2), token(", "), token("1", 0.7), token("]"), token("<|im_end|>")]
    text = "<think>\n1 or 0\n</think>\n[0, 1]" if in_content else "[0, 1]"
    _, content = said(text, {"content": thought + answer})
    assert read_reply(content.encode(), CHOOSE).probabilities == pytest.approx((0.2, 0.7))
    _, content = said("[0, 1]", {"content": thought})
    assert read_reply(content.encode(), CHOOSE).probabilities is None


def refusing(*fields, status=400):
    """A server that takes a request only without these fields, and names the first that it has."""

    def step(body):
        for field in fields:
            if field in body:
                error = {"message": f"Unsupported parameter: '{field}' is not supported with this model."}
                return status, json.dumps({"error": error | {"param": field, "code": "unsupported_parameter"}})
        return said("label")

    return [step]


def test_a_limit_that_is_refused_by_one_name_is_given_by_the_other(server):
    server.script = refusing("max_tokens")
    client = server.client()
    assert [client.complete(ASK).text for _ in range(2)] == ["label", "label"]
    limits = [{key: body[key] for key in body if key.startswith("max_")} for _, body in server.asked]
    assert limits == [{"max_tokens": 32}, {"max_completion_tokens": 32}, {"max_completion_tokens": 32}]


def test_a_limit_that_is_too_large_is_the_servers_word(server):
    def step(body):
        if "max_tokens" in body:
            return 400, "max_tokens is too large: 32, at most 16"
        return 422, "unknown field max_completion_tokens"

    server.script = [step]
    with pytest.raises(EvaluationError, match="max_tokens is too large: 32"):
        server.client().complete(ASK)


@pytest.mark.parametrize("field", ["temperature", "seed"])
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_field_is_named_with_the_key_that_leaves_it_out(server, field, status):
    server.script = refusing(field, status=status)
    with pytest.raises(EvaluationError, match=rf"refuses '{field}': add it to autointerp\.client\.omit"):
        server.client().complete(ASK)
    client = server.client(omit=(field,))
    assert client.complete(ASK).text == "label"
    assert field not in server.asked[-1][1]
    assert client.identity != server.client().identity


def test_a_refusal_of_probabilities_is_no_refused_key(server, monkeypatch):
    monkeypatch.setenv("ATLAS_TEST_KEY", "sk-a-key")

    def step(body):
        if "logprobs" in body or "top_logprobs" in body:
            return 403, '{"error": {"message": "You are not allowed to request logprobs from this model"}}'
        return said("[1, 0]")

    server.script = [step]
    with pytest.raises(EvaluationError, match=r"refuses 'logprobs': add it to autointerp\.client\.omit") as error:
        server.client(api_key_env="ATLAS_TEST_KEY").complete(CHOOSE)
    assert "ATLAS_TEST_KEY" not in str(error.value)
    reply = server.client(omit=("logprobs",)).complete(CHOOSE)
    np.testing.assert_array_equal(read_answers(reply, 2), [1, 0])


def test_a_form_that_is_refused_is_named_with_its_key(server):
    server.script = refusing("response_format")
    with pytest.raises(EvaluationError, match=r"set autointerp\.client\.structured to false"):
        server.client(structured=True).complete(CHOOSE)


def test_a_reasoning_model_of_a_strict_server_answers(server):
    """As OpenAI's reasoning models: none of the three fields, and a limit that holds the thought."""
    server.script = refusing("max_tokens", "temperature", "logprobs", "top_logprobs")
    client = server.client(omit=("temperature", "logprobs"), reasoning_tokens=1000)
    assert client.complete(CHOOSE).text == "label"
    assert server.asked[-1][1] == {
        "model": "m",
        "messages": [{"role": "user", "content": "which?"}],
        "max_completion_tokens": 1020,
        "seed": 0,
    }


def test_thought_is_counted_before_the_run():
    asking = {"explainers": ("max_activation",), "scorers": ("embedding",), "seeds": (0,)}
    client = {"kind": "openai", "model": "m", "base_url": "http://h/v1"}
    plain, thinking = (
        cost(Autointerp(**asking, client=client | more), 10) for more in ({}, {"reasoning_tokens": 1000})
    )
    assert (plain.requests, thinking.requests) == (20, 20)
    assert thinking.tokens - plain.tokens == 20 * 1000


@pytest.mark.parametrize("fields", [{"omit": ("seed",)}, {"reasoning_tokens": 5}])
def test_a_model_in_the_job_has_no_server_to_refuse_anything(fields):
    with pytest.raises(ValidationError, match="only 'openai' has a server"):
        LabelClient(kind="transformers", model="m", **fields)


TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
OPENED = TEMPLATE + "<think>\n"
SWITCHED = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.parametrize(
    ("opened", "end"),
    [
        ("<think>\n", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
    ],
)
def test_a_thought_that_a_template_opens_has_its_own_end(opened, end):
    assert end_of_open_thought(f"user: x\nassistant: {opened}") == end
    assert without_thought(f"{opened}\n{end}\ncats") == "cats"
    assert end_of_open_thought(f"user: {opened} is a tag\nassistant: ") is None
    assert end_of_open_thought(f"assistant: {opened}{end}") is None


@pytest.mark.parametrize("template", [OPENED, SWITCHED])
def test_a_model_in_the_job_answers_without_thought(tmp_path, template):
    source = tiny_llama(tmp_path / "llama")
    for name in ("plain", "thinks"):
        prepare_model(name, describe_model(source, 4), None, tmp_path / name, tmp_path / "lock")
        tokenizer = AutoTokenizer.from_pretrained(source)  # of the next one
        tokenizer.chat_template = template
        tokenizer.save_pretrained(source)
    spec = LabelClient(kind="transformers", model="tiny")
    plain, client = (
        make_client(spec, ClientFiles(tmp_path / "replies", tmp_path / name, torch.device("cpu"))).client
        for name in ("plain", "thinks")
    )
    assert client._prompt(CHOOSE) == "user: which?\nassistant: <think>\n\n</think>\n\n"
    assert client.identity.endswith("without thought")
    assert not plain.identity.endswith("without thought")
    tokenizer = client.loaded.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    ids = tokenizer("[THINK]a b[/THINK]c d", add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    assert client._text(ids) == "c d"
