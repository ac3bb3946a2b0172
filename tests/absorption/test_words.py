"""Words and prompts: single tokens, each word once, the word at the end of its own prompt."""

import pytest
import torch

from atlas.absorption.prompts import make_word_rows
from atlas.absorption.words import GROUP, LETTERS, SpellingWords, choose_words, vocabulary_words, word_prompts
from atlas.config.downstream import Absorption
from atlas.corpora.encoding import make_encoder
from atlas.models.forward import capture
from atlas.probing.rows import read_facts, read_rows
from tiny import prepare_and_load, tiny_bert, tiny_llama, tiny_tokenizer

VOCABULARY = ["apple", " apple", " Apple", "ant", " bear", "cat", " cow", "c4t", "z", " été", "two words"]


class Tokenizer:
    """What `vocabulary_words` reads of a tokenizer."""

    def __len__(self):
        return len(VOCABULARY)

    def decode(self, ids, **options):
        return "".join(VOCABULARY[index] for index in ids)


class FakeEncoder:
    tokenizer = Tokenizer()
    not_counted = frozenset({5})


def test_words_are_letters_after_at_most_one_space():
    assert vocabulary_words(FakeEncoder) == sorted([" Apple", " apple", " bear", " cow", "ant", "apple"])


def test_spellings_of_one_word_are_one_word():
    words = choose_words(vocabulary_words(FakeEncoder), per_letter=10)
    assert sorted(text.strip().lower() for text in words.texts) == ["ant", "apple", "bear", "cow"]
    assert [LETTERS[place] for place in words.letters] == [text.strip().lower()[0] for text in words.texts]


def test_words_per_letter_are_limited_and_seeded():
    words = [f"a{x}{y}" for x in LETTERS for y in LETTERS] + ["bee"]
    chosen = choose_words(words, 20)
    assert chosen.letters == [0] * 20 + [1]
    assert chosen == choose_words(words, 20)
    assert chosen != choose_words(words, 20, seed=1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny model; its tokenizer gets words of its own, for it knows bytes alone."""
    folder = tmp_path_factory.mktemp("llama")
    return folder / "prepared", prepare_and_load(tiny_llama(folder / "llama"), folder / "prepared", 4)


def test_prompt_ends_in_its_word_and_solves_others(llama):
    encoder = make_encoder(llama[0], "plain")
    words = SpellingWords(["alpha", " beta", "gamma", "delta"], [0, 1, 6, 3])
    prompts = [encoder.tokenizer.decode(ids) for ids in word_prompts(encoder, words, 2, n_sets=2).ids]
    for text, word in zip(prompts, words.texts, strict=True):
        *solved, last = text.removeprefix("\n").split("\n")
        assert last == word
        assert len(solved) == 2
        for line in solved:
            other, letter = line.split(" has the first letter: ")
            assert other in words.texts
            assert other != word
            assert letter == other.strip()[0].upper()


def test_words_that_share_examples_are_grouped_and_each_set_is_used(llama):
    encoder = make_encoder(llama[0], "plain")
    words = SpellingWords([f"word{number}" for number in range(60)], [22] * 60)
    prompts = word_prompts(encoder, words, examples=3, n_sets=4)
    assert sorted(place for group in prompts.alike for place in group) == list(range(60))
    assert len(prompts.alike) == 4
    before = {tuple(prompts.ids[place][: -len(words.texts[place])]) for group in prompts.alike for place in group}
    assert len(before) == 4


def test_word_in_every_set_gets_examples_of_its_own(llama):
    words = SpellingWords(["alpha", "beta", "gamma"], [0, 1, 6])
    prompts = word_prompts(make_encoder(llama[0], "plain"), words, examples=2, n_sets=2)
    assert len(prompts.alike) == 3  # two of three words leave out one


def test_rows_are_those_of_the_word(llama, tmp_path, monkeypatch):
    words = ["alpha", " beta", "gamma", "delta", "epsilon", " zeta"]
    monkeypatch.setattr("atlas.absorption.prompts.vocabulary_words", lambda encoder: words)
    settings = Absorption(examples=2)
    make_word_rows(llama[1], llama[0], ["resid_post.1"], settings, tmp_path / "rows.safetensors")
    data, facts = (
        read_rows(tmp_path / "rows.safetensors", GROUP, "resid_post.1"),
        read_facts(tmp_path / "rows.safetensors"),
    )
    encoder = make_encoder(llama[0], "plain")
    chosen = choose_words(words, settings.words_per_letter)
    assert facts["words"] == chosen.texts
    for place, ids in enumerate(word_prompts(encoder, chosen, 2, settings.example_sets).ids):
        expected = capture(llama[1], torch.tensor([ids]), ["resid_post.1"])["resid_post.1"][0, -1]
        torch.testing.assert_close(data.rows[place], expected, atol=1e-4, rtol=1e-3)


def test_model_that_is_not_causal_has_a_reason_instead_of_rows(tmp_path):
    loaded = prepare_and_load(tiny_bert(tmp_path / "bert"), tmp_path / "prepared", 3, objective="embedding")
    make_word_rows(loaded, tmp_path / "prepared", ["resid_post.1"], Absorption(), tmp_path / "x")
    assert "objective is embedding" in read_facts(tmp_path / "x")["reason"]
    assert len(read_rows(tmp_path / "x", GROUP, "resid_post.1").rows) == 0


def test_vocabulary_without_words_has_a_reason_instead_of_rows(llama, tmp_path):
    make_word_rows(llama[1], llama[0], ["resid_post.1"], Absorption(), tmp_path / "x")
    assert read_facts(tmp_path / "x")["reason"] == "the vocabulary has 0 words of one token, a prompt needs 11"


def test_tokenizer_of_bytes_has_no_words():
    encoder = type("Encoder", (), {"tokenizer": tiny_tokenizer(), "not_counted": frozenset(range(6))})
    assert vocabulary_words(encoder) == []
