"""Evaluation text that was trained on: the same in any template is refused, nearly the same is counted or left out."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atlas.config.corpora import Corpus
from atlas.corpora import near
from atlas.corpora.apart import check_apart
from atlas.corpora.documents import build_documents
from atlas.errors import SourceError
from atlas.files import read_json, sha256_strings

CHATS = [
    [
        {"role": "user", "content": f"Question number {n}: what is {n} plus {n}?"},
        {"role": "assistant", "content": f"The sum of {n} and {n} is {2 * n}.\n\nAsk again, person {n}."},
    ]
    for n in range(40)
]


def build(folder: Path, name: str, values: list, **fields) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values))
    fields = {"min_characters": 1, "eval_fraction": 0.0} | fields
    corpus = Corpus(source={"kind": "path", "path": str(path)}, **fields)
    build_documents(name, corpus, None, folder / name, folder / "lock.yaml")
    return folder / name / "documents.parquet"


def words(generator: random.Random, number: int) -> list[str]:
    return [f"w{generator.randrange(100_000)}" for _ in range(number)]


def plain(chat: list[dict], between: str = "\n\n", names: bool = False) -> str:
    return between.join((f"{each['role'].title()}: " if names else "") + each["content"] for each in chat)


FORMS = {
    "conversation": ("conversation", lambda chat: chat),
    "chat_template": ("chat_template", lambda chat: chat),
    "other keys": ("conversation", lambda chat: [{"from": "human", "value": chat[0]["content"]}, chat[1]]),
    "plain": ("plain", plain),
    "plain with names": ("plain", lambda chat: plain(chat, names=True)),
    "other white space": ("plain", lambda chat: plain(chat, between="\n").replace("plus", "plus \n")),
}


@pytest.mark.parametrize("trained", FORMS)
@pytest.mark.parametrize("judged", FORMS)
def test_the_same_text_is_refused_whatever_its_template(tmp_path, trained, judged):
    paths = []
    for name, form, fraction in (("trained", trained, 0.0), ("judged", judged, 1.0)):
        template, write = FORMS[form]
        part = CHATS if name == "trained" else CHATS[:7]
        paths.append(build(tmp_path, name, [write(chat) for chat in part], template=template, eval_fraction=fraction))
    with pytest.raises(
        SourceError, match=r"7 of 7 evaluation documents of .*judged.* are training documents of .*trained"
    ):
        check_apart(*paths)


def test_held_out_text_of_the_same_corpus_in_another_template_is_no_fault(tmp_path):
    """Two editions that differ in white space are two documents; on both sides of the split they are counted."""
    texts = [f"some text of number {n}" for n in range(60)]
    texts += [text.replace(" ", "  ") for text in texts]
    paths = [
        build(tmp_path, name, texts, eval_fraction=0.3, **fields)
        for name, fields in (("bare", {}), ("wrapped", {"wrapper": {"before": "User: "}}))
    ]
    report = check_apart(*paths)
    assert report["near_duplicates"] == check_apart(paths[0], paths[0])["near_duplicates"] > 5


def test_near_duplicates_are_those_with_more_than_half_their_runs_in_one_document(tmp_path):
    """Held-out documents of 112 words, hence 100 runs; n + 12 of the words are a part of a far longer document."""
    generator = random.Random(0)
    source, other = words(generator, 3000), words(generator, 3000)
    shared = {51: True, 50: False, 100: True, 0: False}
    judged = [[*source[500 : 512 + n], *words(generator, 100 - n)] for n in shared]
    # Half in one document and half in another: in none of the two is more than half.
    judged.append([*source[40:90], *other[40:102]])
    # A document shorter than a run, as a whole the other's text in capitals.
    short = words(generator, 8)
    judged.append([word.upper() for word in short])
    trained = [" ".join(text) for text in (source, other, short)] + [" ".join(words(generator, 50)) for _ in range(30)]
    texts = [", ".join(text) if text != judged[-1] else " ".join(text) for text in judged]
    paths = build(tmp_path, "trained", trained), build(tmp_path, "judged", texts, eval_fraction=1.0)
    report = check_apart(*paths)
    assert (report["training_documents"], report["evaluation_documents"], report["compared_documents"]) == (33, 6, 6)
    assert (report["near_duplicates"], report["near_duplicate_share"]) == (3, 0.5)
    found = {entry["evaluation"]: entry["shared"] for entry in report["examples"]}
    expected = {sha256_strings([texts[place]]): share for place, share in ((0, 0.51), (2, 1.0), (5, 1.0))}
    assert found == expected
    assert {entry["training"] for entry in report["examples"]} == {sha256_strings([trained[n]]) for n in (0, 2)}


def corpus_of_near_duplicates() -> list[str]:
    """60 texts in two editions that differ in a word: some editions are on both sides of the split."""
    generator = random.Random(1)
    texts = [" ".join(words(generator, 60)) for _ in range(60)]
    return [*texts, *(f"{text} once more" for text in texts)]


def test_near_duplicates_of_one_corpus_are_counted_and_can_be_left_out(tmp_path):
    texts = corpus_of_near_duplicates()
    path = build(tmp_path, "counted", texts, eval_fraction=0.3)
    table = pd.read_parquet(path)
    sides = table.assign(text=table.text.str.removesuffix(" once more")).groupby("text").split.agg(set)
    both = int((sides == {"train", "eval"}).sum())
    report = check_apart(path, path)
    assert both > 5
    assert report["near_duplicates"] == both
    dropped = build(tmp_path, "dropped", texts, eval_fraction=0.3, near_duplicates="drop")
    assert check_apart(dropped, dropped)["near_duplicates"] == 0
    left, summary = pd.read_parquet(dropped), read_json(dropped.with_name("corpus.json"))
    assert summary["left_out"]["near_duplicate"] == both
    assert summary["n_documents"] == left.split.value_counts().to_dict()
    assert summary["n_documents"]["eval"] == (table.split == "eval").sum() - both
    assert summary["n_characters"] == left.text.str.len().sum()
    for split, members in left.groupby("split", sort=False):
        assert summary["fingerprint"][split] == sha256_strings(members.document_id)
    assert left[left.split == "train"].equals(table[table.split == "train"].set_axis(left[left.split == "train"].index))


def test_what_is_held_at_once_is_bounded_and_said(tmp_path, monkeypatch):
    texts = corpus_of_near_duplicates()
    whole = build(tmp_path, "whole", texts, eval_fraction=0.3, near_duplicates="drop")
    monkeypatch.setattr(near.held_documents, "__defaults__", (500,))
    path = build(tmp_path, "counted", texts, eval_fraction=0.3)
    report = check_apart(path, path)
    assert report["compared_documents"] == 500 // 50  # 60 words have 48 runs, 62 have 50
    assert report["near_duplicate_share"] == report["near_duplicates"] / report["compared_documents"]
    parts = build(tmp_path, "parts", texts, eval_fraction=0.3, near_duplicates="drop")
    assert pd.read_parquet(parts).equals(pd.read_parquet(whole))


def test_scripts_without_spaces_have_a_word_per_character():
    runs = near.Runs()
    text = "".join(chr(0x4E00 + n) for n in range(40))
    assert len(runs.of(text)) == 40 - near.RUN_WORDS + 1
    assert len(runs.of("one two. Three")) == 1
    assert np.array_equal(runs.of("one two. Three"), near.Runs().of("ONE  two three"))
    assert len(runs.of(" .,- ")) == 0


def test_corpora_without_held_out_documents_have_no_share(tmp_path):
    path = build(tmp_path, "a", ["some text", "other text"])
    assert check_apart(path, path)["near_duplicate_share"] is None
