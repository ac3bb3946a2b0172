"""Words stay apart wherever tokens are decoded one by one, whatever the kind of tokenizer."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizer_kinds import KINDS, NINE, SENTENCE, SPECIALS
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atlas.absorption.words import vocabulary_words
from atlas.autointerp.delphi import token_texts
from atlas.autointerp.prompts import highlighted
from atlas.autointerp.tools import Tools
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.corpora.encoding import make_encoder
from atlas.finance.kinds import TokenTexts
from atlas.latents.token_classes import CLASSES, TokenTable
from atlas.site import text as site_text
from atlas.site.contexts import Context
from atlas.site.neuronpedia import _activation
from atlas.site.text import TokenPieces
from atlas.token_text import text_inside
from tiny import tiny_tokenizer


@pytest.fixture(scope="module", params=[*KINDS, "bytes"])
def folder(request, tmp_path_factory) -> Path:
    """A tokenizer of each kind, saved."""
    target = tmp_path_factory.mktemp(request.param)
    if request.param == "bytes":
        tokenizer = tiny_tokenizer()
    else:
        backend = KINDS[request.param]()
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="</s>",
            clean_up_tokenization_spaces=False,
        )
    tokenizer.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def shown(folder):
    """The sentence as one window: its tools, its ids, and which word each token is of."""
    tokenizer, table = AutoTokenizer.from_pretrained(folder), TokenTable.of(folder)
    ids = np.array(tokenizer(SENTENCE, add_special_tokens=False)["input_ids"])
    zeros = np.zeros(1, np.int64)
    windows = Windows(len(ids), ("c",), zeros, zeros, zeros, ids[None], np.ones((1, len(ids)), bool), (len(ids),))
    tools = Tools(windows, WindowWords.find(windows, table), table, tokenizer, None, 0)
    ends = np.cumsum([len(table.spelled[token]) for token in ids])
    lengths = np.cumsum([len(f" {word}") for word in NINE])
    return tools, ids, np.searchsorted(lengths, ends + (ends[-1] < lengths[-1]))


def test_words_of_labels_are_nine(shown):
    tools, _, _ = shown
    words = tools.words.of[0]
    found = [tools.words.texts[word] for word in words[np.flatnonzero(np.diff(words, prepend=-1))]]
    assert [word for word in found if word != "space"] == NINE  # a tokenizer of bytes has tokens for spaces


def test_prompts_keep_words_apart_around_highlights(shown):
    tools, _, word = shown
    for marked in (word % 2 == 1, word == 3, word < 2, word == 8):
        text = highlighted(tools, tools.tokenizer, 0, marked)
        assert text.replace("<<", "").replace(">>", "").split() == NINE
        found = [part.strip() for part in re.findall("<<(.*?)>>", text)]
        runs = np.split(np.unique(word[marked]), np.flatnonzero(np.diff(np.unique(word[marked])) > 1) + 1)
        assert found == [" ".join(NINE[index] for index in run) for run in runs]


def test_delphis_text_pages_and_neuronpedia_have_nine_words(shown):
    tools, ids, _ = shown
    assert "".join(token_texts(tools, 0)).split() == NINE
    pieces = TokenPieces(tools.tokenizer, tools.tokens)
    assert "".join(text for _, _, text in pieces.pieces(ids.tolist())).split() == NINE
    html = str(site_text.highlighted(pieces, ids.tolist(), [1.0] * len(ids), 1.0))
    assert re.sub("<[^>]*>", "", html).split() == NINE
    scene = SimpleNamespace(pieces=pieces, corpora=SimpleNamespace(tokens=lambda *_: ids.tolist()))
    values = np.ones(len(ids))
    context = Context(
        corpus=0, start=0, peak=0, values=values, stratum=1, low=0.0, high=1.0, share=1.0, massive=values < 0
    )
    assert "".join(_activation(scene, context)["tokens"]).split() == NINE


def test_words_of_the_vocabulary_keep_their_space(folder):
    words = set(vocabulary_words(make_encoder(folder, "plain")))
    assert folder.name.startswith("bytes") or {f" {word}" for word in NINE} <= words


def test_runs_of_tokens_join_to_the_text(folder):
    """Cut anywhere, the parts of a text join to it, bytes of one character together."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = SENTENCE if folder.name.startswith(("word", "unigram")) else f"{SENTENCE}  naïve 🦊\n\n  x"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = text_inside(tokenizer, ids)
    assert whole.strip() == text
    for cut in range(1, len(ids)):
        parts = [text_inside(tokenizer, part) for part in (ids[:cut], ids[cut:])]
        assert "".join(parts) == whole or "\N{REPLACEMENT CHARACTER}" in "".join(parts)


def test_a_space_alone_and_a_byte_are_classed_by_their_text(folder):
    table, tokenizer = TokenTable.of(folder), AutoTokenizer.from_pretrained(folder)
    for symbol, text, kind in (("▁", " ", "space"), ("<0x0A>", "\n", "newline"), ("<0x20>", " ", "space")):
        index = tokenizer.get_vocab().get(symbol)
        if index is not None:
            assert (table.texts[index], CLASSES[table.classes[index]]) == (text, kind)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_kinds_of_financial_tokens_are_found_in_sentencepiece(tmp_path, kind):
    fast = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind](), unk_token="<unk>", eos_token="</s>")
    fast.save_pretrained(tmp_path)
    texts = TokenTexts.of(tmp_path)
    ids = np.array(make_encoder(tmp_path, "plain").encode(["Profit rose 3.5% to $1.2 billion at Acme."])[0][:-1])
    kinds = texts.kinds(ids, np.zeros(len(ids), int), np.ones(len(ids), bool))
    assert {1, 0} <= set(kinds.tolist())  # percent and amount


def test_marks_of_pieces_are_kept_in_names(folder):
    table = TokenTable.of(folder)
    if folder.name.startswith("wordpiece"):
        place = table.texts.index("##ing")
        assert table.spelled[place] == "ing"
        assert table.spelled[table.texts.index("cat")] == " cat"
    else:
        assert table.spelled == table.texts
    assert replace(table, spelled=[]).spelled == table.texts
