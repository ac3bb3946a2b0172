"""Kinds of tokens: planted expressions in text, whatever pieces the tokenizer makes of it."""

import re

import numpy as np
import pytest
from transformers import AutoTokenizer

from atlas.errors import EvaluationError
from atlas.files import write_json
from atlas.finance.kinds import KINDS, TokenTexts, expressions, in_group, token_kinds
from tiny import tiny_bert, tiny_tokenizer


def found(text: str) -> dict[str, str]:
    """Expressions of a text and their kinds; where they overlap the winner, letter by letter."""
    kinds = token_kinds(list(text))
    marks = "".join(KINDS[kind][0] if kind != KINDS.index("other") else "." for kind in kinds)
    # Letter by letter a space has no kind: it belongs to the expression around it.
    marks = re.sub(r"(?<=([aprne]))\.(?=\1)", lambda gap: gap[1], marks)
    return {text[m.start() : m.end()]: m[0][0] for m in re.finditer(r"([aprne])\1*", marks)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("paid $3.5 million in", {"$3.5 million": "a"}),
        ("worth US$40bn now", {"US$40bn": "a"}),
        ("some 200 million euros of", {"200 million euros": "a"}),
        ("up 1.7 percent, down 0.25% or 3 per cent", {"1.7 percent": "p", "0.25%": "p", "3 per cent": "p"}),
        ("by 25 basis points", {"25 basis points": "p"}),
        ("fell 200 points", {"200": "n"}),
        ("at 12 times earnings, a debt-to-equity ratio", {"12 times": "r", "debt-to-equity ratio": "r"}),
        ("a 3-for-1 split of two-thirds", {"3-for-1": "r", "two-thirds": "r"}),
        ("in 2015, 1,250,000 shares", {"2015": "n", "1,250,000": "n"}),
        ("as Goldman Sachs and Bank of England said", {"Goldman Sachs and Bank of England": "e"}),
        ("said. Shares fell. BP rose", {"BP": "e"}),
        ("on Monday in March I've seen Peter", {"Peter": "e"}),
        ("nothing at all here", {}),
    ],
)
def test_planted_expressions_are_found(text, expected):
    assert found(text) == expected


def test_every_token_that_touches_an_expression_is_of_its_kind_and_no_other():
    texts = ["It", " rose", " 3", ".", "5", "%", " at", " Ac", "me", ",", " then", " $", "2", "m"]
    kinds = [KINDS[kind] for kind in token_kinds(texts)]
    assert kinds == ["other"] * 2 + ["percent"] * 4 + ["other"] + ["entity"] * 2 + ["other"] * 2 + ["amount"] * 3


def test_how_text_is_cut_to_tokens_does_not_matter():
    text = "Profit at Acme Group rose 3.5% to $1.2 billion in 2016, a 3-for-1 split."
    letters, words = token_kinds(list(text)), re.findall(r"\s?\S+", text)
    ends = np.cumsum([len(word) for word in words])
    for word, end, kind in zip(words, ends, token_kinds(words), strict=True):
        inside = {int(each) for each in letters[end - len(word.lstrip()) : end]}
        assert kind in inside or inside == {KINDS.index("other")}


def test_of_overlapping_expressions_the_amount_wins_over_its_number():
    assert [kind for *_, kind in expressions("paid $30")] == ["amount", "number"]
    assert set(token_kinds(["paid", " $", "30"])[1:]) == {KINDS.index("amount")}


def test_documents_are_read_whole_across_contexts_and_what_is_not_counted_is_other(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    write_json(tmp_path / "identity.json", {"tokenizer_sha256": "t"})
    write_json(tmp_path / "config.json", {})
    texts = TokenTexts.of(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("up 3.5% on 7", add_special_tokens=False)["input_ids"]
    # The first document goes on after another row, as where a context begins; the last "7" is one of its own.
    tokens = np.array([*ids[:4], 1, *ids[4:], ids[-1]])
    document = np.array([0] * 4 + [-1] + [0] * (len(ids) - 4) + [1])
    kinds = texts.kinds(tokens, document, document >= 0)
    expected = ["other"] * 3 + ["percent", "other"] + ["percent"] * 3 + ["other"] * 4 + ["number"] * 2
    assert [KINDS[kind] for kind in kinds] == expected
    assert in_group(kinds, "number").sum() == 6 and in_group(kinds, "ratio").sum() == 4


def test_a_tokenizer_that_does_not_spell_text_is_refused(tmp_path):
    from transformers import BertTokenizerFast

    tiny_bert(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "profit", "##s", "."]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    write_json(tmp_path / "identity.json", {"tokenizer_sha256": "t"})
    with pytest.raises(EvaluationError, match="numbers and names cannot be found in what this tokenizer makes"):
        TokenTexts.of(tmp_path)
