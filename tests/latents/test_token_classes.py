import numpy as np
import pytest

from atlas.errors import EvaluationError
from atlas.latents.token_classes import CLASSES, TokenTable, token_class
from atlas.models.prepare import prepare_model
from tiny import describe_model, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "newline": ["\n", "\r\n", "\n\n   ", " \n\t", "\u2028"],
        "space": [" ", "\t", "    ", "", "\xa0"],
        "digit": ["7", " 42", "3.", "²", "½", "٣", "(1"],
        "punctuation": [",", "...", "?”", " —", "$", "©", '"'],
        "markup": ["**", "##", "</", "[[", "]]", "|", "```", "{", " = ", "\\", "<!--"],
        "word": ["the", " The", "é", "你好", "привет", "don't", "x2", "a\n", "</div", "\N{REPLACEMENT CHARACTER}"],
    }.items(),
)
def test_classes_by_text(name, texts):
    for text in texts:
        assert CLASSES[token_class(text)] == name, repr(text)


def test_table_of_a_prepared_model(tmp_path):
    source = tiny_llama(tmp_path / "llama")
    prepare_model("llama", describe_model(source, 4), None, tmp_path / "model", tmp_path / "lock.yaml")
    table, tokenizer = TokenTable.of(tmp_path / "model"), tiny_tokenizer()
    assert len(table.classes) == 262
    for text, name in (
        ("a", "word"),
        ("\n", "newline"),
        (" ", "space"),
        ("3", "digit"),
        ("!", "punctuation"),
        ("#", "markup"),
    ):
        (index,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert (CLASSES[table.classes[index]], table.texts[index]) == (name, text)
    assert {CLASSES[index] for index in table.classes[[0, 1, 2, 4, 5]]} == {"special"}
    # A byte that is a part of a character says nothing alone.
    part = tokenizer("é", add_special_tokens=False)["input_ids"][0]
    assert CLASSES[table.classes[part]] == "word"


def test_continuing_pieces_are_classed_without_their_prefix(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[UNK]": 0, "[SEP]": 1, "[CLS]": 2, "a": 3, "##,": 4, "##7": 5, "##b": 6, "#": 7}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]"
    )
    tokenizer.save_pretrained(tmp_path)
    table = TokenTable.of(tmp_path)
    names = ["word", "special", "special", "word", "punctuation", "digit", "word", "markup"]
    assert [CLASSES[index] for index in table.classes] == names


def test_token_of_another_tokenizer_is_refused():
    table = TokenTable(np.zeros(5, np.uint8), list("abcde"))
    with pytest.raises(EvaluationError, match="token id 7 occurs, but the tokenizer has ids up to 4"):
        table.of_tokens(np.array([1, 7]))
