"""Long texts are tokenised in slices, and the tokens are those of the whole text."""

import random
from pathlib import Path

import pytest
from tokenizer_kinds import KINDS, pairs
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atlas.corpora import slices
from atlas.corpora.encoding import make_encoder
from tiny import tiny_tokenizer

WORDS = [*"the cat sat on the mat and was happy profit rose 3.5% unhappy naïve 🦊 你好 \n \n\n  x </s>".split(" "), ""]


@pytest.fixture(scope="module", params=[*KINDS, "bytes"])
def folder(request, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp(request.param)
    if request.param == "bytes":
        tokenizer = tiny_tokenizer()
    else:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=KINDS[request.param](), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
        )
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize("seed", range(6))
def test_slices_have_the_tokens_of_the_whole(folder, monkeypatch, seed, caplog):
    generator = random.Random(seed)
    text = " ".join(generator.choice(WORDS) for _ in range(900))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    monkeypatch.setattr(slices, "SLICE", 900)
    monkeypatch.setattr(slices, "OVERLAP", 500)
    lengths, real = [], type(tokenizer).__call__

    def call(self, text, **options):
        lengths.append(len(text) if isinstance(text, str) else sum(map(len, text)))
        return real(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", call)
    assert slices.encode_texts(tokenizer, ["before", text, "after"], split_special_tokens=True)[1] == whole
    assert max(lengths) <= 900
    assert "tokenised whole" not in caplog.text
    encoder = make_encoder(folder, "plain")
    assert encoder.encode([text])[0] == [*whole, encoder.separator]


def test_a_text_without_a_place_to_cut_is_tokenised_whole_and_said(monkeypatch, caplog):
    """One word of a tokenizer whose pieces depend on where the word begins."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs())
    text = "a" * 5001
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(slices, "SLICE", 901)
    monkeypatch.setattr(slices, "OVERLAP", 500)
    assert slices.encode_texts(tokenizer, [text])[0] == whole
    assert "a text of 5001 characters is tokenised whole" in caplog.text


def test_batches_are_bounded(monkeypatch):
    monkeypatch.setattr(slices, "SLICE", 10)
    texts = ["a" * 4, "b" * 4, "c" * 4, "d" * 30, "", "e"]
    assert list(slices._batches(texts)) == [texts[:2], texts[2:3], texts[3:4], texts[4:]]
