"""Texts and messages become documents; filters choose records."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.config.corpora import Criterion, Filter
from atlas.corpora.filters import make_filter, vocabulary_density, vocabulary_pattern
from atlas.corpora.templates import clean_text, make_document, read_messages
from atlas.errors import SourceError

SHAREGPT = [
    {"from": "human", "value": "Hello \r\n"},
    {"from": "gpt", "value": "Hi."},
    {"from": "gpt", "value": "  "},
    {"from": "narrator", "value": "Silence."},
]
OPENAI = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "assistant", "content": None},
    {"role": "narrator", "content": "Silence."},
]


@pytest.mark.parametrize("messages", [SHAREGPT, OPENAI])
def test_conversation_is_written_out(messages):
    document = make_document(messages, "conversation", "here")
    assert document.text == "User: Hello\n\nAssistant: Hi.\n\nNarrator: Silence."
    assert document.n_characters == len("HelloHi.Silence.")


@pytest.mark.parametrize("messages", [SHAREGPT, OPENAI])
def test_messages_are_kept_for_the_models_template(messages):
    document = make_document(messages, "chat_template", "here")
    assert json.loads(document.text) == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "narrator", "content": "Silence."},
    ]


def test_identity_is_of_the_content_not_the_template():
    ids = {make_document(m, t, "").document_id for m in (SHAREGPT, OPENAI) for t in ("conversation", "chat_template")}
    assert len(ids) == 1
    assert make_document("User: Hello", "plain", "").document_id not in ids
    swapped = [OPENAI[1] | {"role": "user"}, OPENAI[0] | {"role": "assistant"}]
    assert make_document(swapped, "conversation", "").document_id not in ids


@pytest.mark.parametrize(("value", "template"), [(None, "plain"), (" \n", "plain"), ([], "conversation")])
def test_nothing_to_read_is_no_document(value, template):
    assert make_document(value, template, "here") is None


@pytest.mark.parametrize(
    ("value", "template", "message"),
    [
        ([{"from": "human"}], "plain", "here: expected text, found list; lists of messages need template"),
        ("text", "conversation", "here: expected a list of messages, found str"),
        (["text"], "conversation", "here: message 0 must have text in 'role' and 'content'"),
        ([{"role": "user", "content": ["part"]}], "conversation", "here: message 0 must have text"),
        ([{"role": "user"}], "conversation", r"message 0 has the fields \['role'\]"),
    ],
)
def test_wrong_form_is_named(value, template, message):
    with pytest.raises(SourceError, match=message):
        make_document(value, template, "here")


@given(st.text(st.characters(codec=None), max_size=50))
def test_cleaned_text_has_no_controls_and_can_be_stored(text):
    cleaned = clean_text(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in cleaned)
    assert clean_text(cleaned) == cleaned


def test_text_is_otherwise_left_as_it_is():
    assert (
        clean_text("e\u0301 \u00e9\t\u200b\ufffd  x\r\ny\rz\x00\x1b\x85\ud83d")
        == "e\u0301 \u00e9\t\u200b\ufffd  x\ny\nz\ufffd"
    )


def test_unknown_fields_of_messages_do_not_matter():
    assert read_messages([{"role": "Human", "content": "x", "weight": 1}], "") == [{"role": "user", "content": "x"}]


def test_filter_accepts_by_any_criterion_and_inverts():
    criteria = (
        Criterion(field="link", pattern="/(business|money)/"),
        Criterion(field="text", vocabulary=("bank", "interest rate"), min_per_1000_words=200),
    )
    keep, drop = (make_filter(Filter(any_of=criteria, invert=invert)) for invert in (False, True))
    records = [
        {"link": "http://x/BUSINESS/1", "text": "weather"},
        {"link": "http://x/world/1", "text": "The Bank and the interest rate, they say, fell"},  # 2 of 9 words
        {"link": "http://x/world/1", "text": "The banking bank is a place where people go to sit"},  # 1 of 11
        {"link": None, "text": ""},
    ]
    assert [keep(record, "") for record in records] == [True, True, False, False]
    assert [drop(record, "") for record in records] == [False, False, True, True]
    assert make_filter(None)({}, "") is True


def test_density_counts_per_thousand_words():
    words = vocabulary_pattern(("bank", "c++"[:1]))
    assert vocabulary_density("bank " * 3 + "river " * 9, words) == 250
    assert vocabulary_density("", words) == 0


def test_a_field_that_is_not_there_is_named():
    keep = make_filter(Filter(any_of=(Criterion(field="url", pattern="x"),)))
    with pytest.raises(SourceError, match=r"here: filter needs field 'url'; the record has \['text'\]"):
        keep({"text": "x"}, "here")
