"""Tokens: nothing padded, nothing lost, nothing special but what the tokenizer or the template put there."""

import hashlib
import json
import shutil
import tracemalloc
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atlas.config.corpora import Corpus
from atlas.config.data import TokenBudget
from atlas.corpora import packing
from atlas.corpora import tokens as tokens_file
from atlas.corpora.apart import check_apart
from atlas.corpora.documents import build_documents
from atlas.corpora.encoding import make_encoder
from atlas.corpora.packing import pack
from atlas.corpora.tokens import (
    datasets_of,
    fingerprint_of,
    open_documents,
    read_tokens,
    tokenise_corpus,
    window_of,
    write_split,
)
from atlas.errors import SourceError
from atlas.files import read_json, sha256_file, write_json
from atlas.hdf5 import reserved_hdf5
from tiny import VOCABULARY, tiny_tokenizer

BOS, EOS, USER = 1, 2, 4
LENGTH = 32
# One spells special tokens out, one is far longer than a context, one has letters of several bytes.
TEXTS = ["I type </s> and <|user|> and <s>.", "long " * 60, "naïve 你好 🦊", *[f"Text number {n}." for n in range(120)]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Prepared models by what their tokenizer puts around a text: nothing, or <s> … </s>."""
    made = {}
    for name, frame in (("bare", False), ("framed", True)):
        made[name] = tmp_path_factory.mktemp(name)
        tiny_tokenizer(frame=frame).save_pretrained(made[name])
        write_json(made[name] / "identity.json", {"tokenizer_sha256": name, "longest_context": 64})
    return made


def make_corpus(tmp_path: Path, records: list[dict], name: str = "corpus", **fields) -> tuple[Path, Corpus]:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    fields = {"eval_fraction": 0.3, "min_characters": 1} | fields
    corpus = Corpus(source={"kind": "path", "path": str(path)}, **fields)
    build_documents(name, corpus, None, tmp_path / name, tmp_path / "lock.yaml")
    return tmp_path / name, corpus


def plain(tmp_path: Path, texts=TEXTS, **fields) -> tuple[Path, Corpus]:
    return make_corpus(tmp_path, [{"text": text} for text in texts], **fields)


def budget(train: int = 20, evaluated: int = 5, length: int = LENGTH) -> TokenBudget:
    return TokenBudget(context_length=length, train_tokens=train * length, eval_tokens=evaluated * length)


def texts_of(folder: Path, split: str) -> list[str]:
    table = pd.read_parquet(folder / "documents.parquet")
    return table.text[table.split == split].to_list()


@pytest.mark.parametrize(("kind", "frame"), [("bare", 0), ("framed", 1)])
def test_contexts_hold_the_documents_end_to_end(tmp_path, folders, kind, frame):
    folder, corpus = plain(tmp_path)
    tokenise_corpus(folder, folders[kind], corpus, budget(), ["train", "eval"], tmp_path / "t.h5")
    for split, n_contexts in (("train", 20), ("eval", 5)):
        tokens = read_tokens(tmp_path / "t.h5", split)
        assert tokens.tokens.shape == tokens.document.shape == tokens.counted.shape == (n_contexts, LENGTH)
        assert (tokens.tokens.dtype, tokens.document.dtype, tokens.counted.dtype) == (np.uint32, np.int32, np.bool_)
        body = slice(frame, LENGTH - frame)
        # The reference: each text is its bytes (6 special tokens, then the 256 byte symbols), then </s>.
        stream, document = [], []
        for index, text in enumerate(texts_of(folder, split)):
            ids = [*byte_ids(text), EOS]
            stream += ids
            document += [index] * len(ids)
        wanted = n_contexts * (LENGTH - 2 * frame)
        assert tokens.tokens[:, body].ravel().tolist() == stream[:wanted]
        assert tokens.document[:, body].ravel().tolist() == document[:wanted]
        assert (tokens.counted[:, body] == (tokens.tokens[:, body] != EOS)).all()
        if frame:
            assert (tokens.tokens[:, 0] == BOS).all()
            assert (tokens.tokens[:, -1] == EOS).all()
            assert (tokens.document[:, [0, -1]] == -1).all()
            assert not tokens.counted[:, [0, -1]].any()


def byte_ids(text: str) -> list[int]:
    """Ids of the byte-level tokenizer, by its own table of byte symbols."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = bytes_to_unicode()
    return [6 + symbols.index(table[byte]) for byte in text.encode()]


def test_spelled_special_tokens_stay_text(folders):
    encoder = make_encoder(folders["bare"], "plain")
    ids = encoder.encode([TEXTS[0]])[0]
    assert ids == [*byte_ids(TEXTS[0]), EOS]
    assert encoder.encode([TEXTS[0]])[0] == ids


def test_chat_template_marks_structure_and_messages_cannot(tmp_path, folders):
    encoder = make_encoder(folders["bare"], "chat_template")
    messages = [{"role": "user", "content": "Hi </s>\U00100000"}, {"role": "assistant", "content": "<|user|>"}]
    ids = encoder.encode([json.dumps(messages)])[0]
    assert ids == [USER, *byte_ids("Hi </s>\U00100000"), EOS, USER + 1, *byte_ids("<|user|>"), EOS]
    plain_ids = encoder.encode([json.dumps([{"role": "user", "content": "Hi"}])])[0]
    assert plain_ids == [USER, *byte_ids("Hi"), EOS]
    chats = [{"messages": [{"role": "user", "content": text}]} for text in TEXTS]
    folder, corpus = make_corpus(tmp_path, chats, text_field="messages", template="chat_template")
    tokenise_corpus(folder, folders["bare"], corpus, budget(), ["train"], tmp_path / "t.h5")
    tokens = read_tokens(tmp_path / "t.h5", "train")
    assert (tokens.counted == (tokens.tokens >= 6)).all()
    assert (tokens.document >= 0).all()


def test_context_prefix_is_not_repeated_by_the_template(tmp_path, folders):
    tokenizer = tiny_tokenizer(frame=True)
    tokenizer.chat_template = "<s>" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    encoder = make_encoder(tmp_path, "chat_template")
    assert (encoder.prefix, encoder.suffix, encoder.separator) == ((BOS,), (EOS,), EOS)
    assert encoder.encode([json.dumps([{"role": "user", "content": "x"}])])[0] == [USER, *byte_ids("x"), EOS]


def test_template_that_does_not_close_gets_a_separator(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    encoder = make_encoder(tmp_path, "chat_template")
    assert encoder.encode([json.dumps([{"role": "user", "content": "xyz"}])])[0] == [*byte_ids("xyz"), EOS]


def test_chats_do_not_depend_on_the_day_they_are_tokenised_on(tmp_path, monkeypatch):
    from transformers.utils import chat_template_utils

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y, %H:%M') }}" + tokenizer.chat_template
    (tmp_path / "model").mkdir()
    tokenizer.save_pretrained(tmp_path / "model")
    write_json(tmp_path / "model/identity.json", {"tokenizer_sha256": "x"})
    chats = [{"text": [{"role": "user", "content": f"message number {n} " * 5}]} for n in range(20)]
    written = {}
    for today in (datetime(2025, 1, 31, 9, 30), datetime(2031, 12, 1)):
        monkeypatch.setattr(chat_template_utils, "datetime", SimpleNamespace(now=lambda today=today: today))
        chat_template_utils._compile_jinja_template.cache_clear()
        for fields in ({}, {"chat_date": "2020-02-29"}):
            name = f"c{len(written)}"
            folder, corpus = make_corpus(tmp_path, chats, name, template="chat_template", eval_fraction=0.0, **fields)
            tokenise_corpus(folder, tmp_path / "model", corpus, budget(5), ["train"], tmp_path / f"{name}.h5")
            written[name] = read_tokens(tmp_path / f"{name}.h5", "train").tokens.ravel().tolist()
            with h5py.File(tmp_path / f"{name}.h5") as file:
                day = file.attrs["chat_date"]
            assert read_json(folder / "corpus.json")["chat_date"] == day == fields.get("chat_date", "2024-07-26")
    first = byte_ids("26 Jul 2024, 00:00")
    assert written["c0"][: len(first)] == first
    assert written["c0"] == written["c2"]
    assert written["c1"] == written["c3"]
    assert written["c1"][: len(first)] == byte_ids("29 Feb 2020, 00:00")


def test_chats_that_the_template_refuses_are_counted_or_an_error(tmp_path):
    tokenizer = tiny_tokenizer()
    refusal = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    (tmp_path / "model").mkdir()
    tokenizer.save_pretrained(tmp_path / "model")
    for name, share in (("few", 10), ("most", 2)):
        chats = [
            {"text": [{"role": "user" if n % share else "assistant", "content": f"message number {n} " * 3}]}
            for n in range(100)
        ]
        chats = chats if name == "few" else [chat for n, chat in enumerate(chats) if n % 3 == 0 or n % 2 == 0]
        folder, corpus = make_corpus(tmp_path, chats, name, template="chat_template", eval_fraction=0.0)
        arguments = folder, tmp_path / "model", corpus, budget(), ["train"], tmp_path / f"{name}.h5"
        if name == "few":
            tokenise_corpus(*arguments)
            with h5py.File(tmp_path / "few.h5") as file:
                refused = file["train"].attrs["refused_documents"]
            roles = [json.loads(text)[0]["role"] for text in texts_of(folder, "train")]
            assert 0 < refused <= roles.count("assistant") == 10
            used = set(read_tokens(tmp_path / "few.h5", "train").document.ravel())
            assert {roles[index] for index in used} == {"user"}
        else:
            with pytest.raises(SourceError, match=r"chat template refuses \d+ of \d+ documents of train"):
                tokenise_corpus(*arguments)


def test_unknown_words_count_but_marks_do_not(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "<head>": 2, "known": 3, "a": 4}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]")
    fast.add_tokens(["<head>"], special_tokens=True)  # special by the vocabulary only, as Llama 3's headers
    fast.save_pretrained(tmp_path)
    encoder = make_encoder(tmp_path, "plain")
    assert (encoder.separator, encoder.not_counted) == (1, {1, 2})
    (packed,) = pack([(0, encoder.encode(["known other known"])[0])], encoder, 1, 4)
    assert packed.tokens.tolist() == [[3, 0, 3, 1]]
    assert packed.counted.tolist() == [[True, True, True, False]]


def test_only_as_much_text_as_needed_is_read(folders):
    encoder = make_encoder(folders["bare"], "plain")
    taken = []

    def documents():
        for index in range(1000):
            taken.append(index)
            yield index, [7] * 10

    assert sum(len(block.tokens) for block in pack(documents(), encoder, 3, 16)) == 3
    assert len(taken) == 5


@pytest.mark.parametrize("block_tokens", [1, 16, 48, 200])
@pytest.mark.parametrize("kind", ["bare", "framed"])
def test_blocks_are_the_contexts_that_one_block_would_hold(folders, monkeypatch, kind, block_tokens):
    """Documents end within a context, at its end, and after several blocks; the last ones do not fill a context."""
    encoder = make_encoder(folders[kind], "plain")
    lengths = [3, 13, 16, 150, 1, 14, 28, 7, 40, 9]
    documents = [(index, list(range(6 + index, 6 + index + length))) for index, length in enumerate(lengths)]
    (whole,) = pack(documents, encoder, 100, 16)
    monkeypatch.setattr(packing, "BLOCK_TOKENS", block_tokens)
    for wanted in (100, 7, 1):
        blocks = list(pack(documents, encoder, wanted, 16))
        assert all(block.tokens.size <= max(block_tokens, 16) for block in blocks)
        for name in ("tokens", "document", "counted"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(block, name) for block in blocks]), getattr(whole, name)[:wanted]
            )


def test_packing_takes_the_memory_of_blocks(tmp_path, folders, monkeypatch):
    """Of 256 blocks that are written a few are held at a time."""
    encoder, n_contexts, block_bytes = make_encoder(folders["bare"], "plain"), 1 << 14, 9 << 12
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 1 << 12)
    monkeypatch.setattr(tokens_file, "BLOCK_TOKENS", 1 << 12)
    documents = ((index, [7] * 100) for index in range(n_contexts))
    with reserved_hdf5(tmp_path / "t.h5", datasets_of({"train": (n_contexts, 64)})) as file:
        tracemalloc.start()
        assert write_split(file["train"], pack(documents, encoder, n_contexts, 64)) == n_contexts
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 12 * block_bytes


def test_a_split_is_read_where_it_is_looked_at(tmp_path, folders):
    folder, corpus = plain(tmp_path)
    tokenise_corpus(folder, folders["bare"], corpus, budget(), ["train"], tmp_path / "t.h5")
    tokens = read_tokens(tmp_path / "t.h5", "train")
    for array in (tokens.tokens, tokens.document, tokens.counted):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_array_equal(tokens.tokens, file["train/tokens"][...])
        assert (
            fingerprint_of(tokens.tokens, tokens.document) == tokens.fingerprint == file["train"].attrs["fingerprint"]
        )
        assert hashlib.sha256(tokens.tokens.tobytes() + tokens.document.tobytes()).hexdigest() == tokens.fingerprint


def test_too_little_text_says_how_much_there_is(tmp_path, folders):
    folder, corpus = plain(tmp_path)
    n_tokens = sum(len(text.encode()) + 1 for text in texts_of(folder, "eval"))
    with pytest.raises(
        SourceError, match=f"eval has {n_tokens:,} tokens, {n_tokens // 32} whole contexts of 32"
    ) as caught:
        tokenise_corpus(folder, folders["bare"], corpus, budget(20, 1000), ["train", "eval"], tmp_path / "t.h5")
    assert f"eval_tokens: {32_000:,}. Lower it to at most {n_tokens // 32 * 32:,}" in str(caught.value)
    assert not (tmp_path / "t.h5").exists()
    fits = budget(20, n_tokens // 32)
    tokenise_corpus(folder, folders["bare"], corpus, fits, ["eval"], tmp_path / "t.h5")
    assert len(read_tokens(tmp_path / "t.h5", "eval").tokens) == n_tokens // 32


def test_same_text_same_file_other_text_other_fingerprint(tmp_path, folders):
    fingerprints = {}
    for name, texts in (
        ("a", TEXTS),
        ("b", TEXTS[::-1]),
        ("c", [*TEXTS[:-1], "Another text instead of the last one."]),
    ):
        folder, corpus = plain(tmp_path, texts, name=name, eval_fraction=0.0)
        # As many whole contexts as there are, so that nearly every document has its part in the fingerprint.
        tokenise_corpus(folder, folders["bare"], corpus, budget(71), ["train"], tmp_path / f"{name}.h5")
        fingerprints[name] = read_tokens(tmp_path / f"{name}.h5", "train").fingerprint
    assert fingerprints["a"] == fingerprints["b"] != fingerprints["c"]
    tokenise_corpus(tmp_path / "a", folders["bare"], corpus, budget(71), ["train"], tmp_path / "again.h5")
    assert sha256_file(tmp_path / "a.h5") == sha256_file(tmp_path / "again.h5")


def test_file_says_what_it_is_of(tmp_path, folders):
    folder, corpus = plain(tmp_path)
    tokenise_corpus(folder, folders["framed"], corpus, budget(), ["eval"], tmp_path / "t.h5")
    tokens = read_tokens(tmp_path / "t.h5", "eval")
    assert (tokens.corpus, tokens.split, tokens.context_length) == ("corpus", "eval", LENGTH)
    with h5py.File(tmp_path / "t.h5") as file:
        assert dict(file.attrs) == {
            "corpus": "corpus", "template": "plain", "context_length": LENGTH, "tokenizer_sha256": "framed",
        }  # fmt: skip
        assert file["eval"].attrs["corpus_fingerprint"] == read_json(folder / "corpus.json")["fingerprint"]["eval"]


def test_damaged_token_files_are_named(tmp_path, folders):
    folder, corpus = plain(tmp_path)
    path = tmp_path / "t.h5"
    tokenise_corpus(folder, folders["bare"], corpus, budget(), ["train"], path)
    with pytest.raises(SourceError, match=r"t\.h5 has no split 'eval', only \['train'\]"):
        read_tokens(path, "eval")
    with pytest.raises(SourceError, match="is missing: run the rule"):
        read_tokens(tmp_path / "none.h5", "train")
    good = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["train/tokens"][3, 4] += 1
    with pytest.raises(SourceError, match=r"t\.h5: the tokens of train are not those.*delete this file and run again"):
        read_tokens(path, "train")
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(SourceError, match=r"t\.h5: missing, truncated or altered"):
        read_tokens(path, "train")


def test_a_token_that_the_model_does_not_embed_is_refused(tmp_path, folders):
    """A tokenizer may have special tokens beyond the embedding: text spells them out, a chat template writes them."""
    model = shutil.copytree(folders["bare"], tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.chat_template = "{% for message in messages %}<image>{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(model)
    write_json(model / "identity.json", {"tokenizer_sha256": "x", "vocabulary_size": VOCABULARY})
    spelled = make_encoder(model, "plain").encode(["an <image> here"])[0]
    assert max(spelled) < VOCABULARY
    with pytest.raises(SourceError, match=f"token '<image>' has id {VOCABULARY}, but the model embeds {VOCABULARY}"):
        make_encoder(model, "chat_template").encode([json.dumps([{"role": "user", "content": "hi"}])])


@pytest.mark.parametrize(
    ("length", "message"), [(128, "context_length is 128.*positions for 64 tokens.*: lower it"), (8, None)]
)
def test_context_must_fit_the_model(tmp_path, folders, length, message):
    folder, corpus = plain(tmp_path)
    arguments = folder, folders["framed"], corpus, budget(1, 1, length), ["train"], tmp_path / "t.h5"
    if message is None:
        tokenise_corpus(*arguments)
        assert read_tokens(tmp_path / "t.h5", "train").tokens.shape == (1, length)
    else:
        with pytest.raises(SourceError, match=message):
            tokenise_corpus(*arguments)


def test_tokenizer_without_what_is_needed_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "chat")
    with pytest.raises(SourceError, match="no chat template; use a chat model, or template 'conversation'"):
        make_encoder(tmp_path / "chat", "chat_template")
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), unk_token="a")
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(SourceError, match="neither an eos nor a sep token"):
        make_encoder(tmp_path / "bare", "plain")
    with pytest.raises(SourceError, match="no tokenizer can be loaded"):
        make_encoder(tmp_path, "plain")


def test_trained_text_is_refused_for_evaluation_under_any_name(tmp_path):
    """chat and copy: the same text, one for training, the other for evaluation only."""
    chat, _ = plain(tmp_path, name="chat")
    copy, _ = plain(tmp_path, TEXTS[::-1], name="copy", eval_fraction=1.0)
    other, _ = plain(tmp_path, [f"Something else {n}" for n in range(50)], name="other", eval_fraction=1.0)
    documents = {folder.name: folder / "documents.parquet" for folder in (chat, copy, other)}
    n_train = len(texts_of(chat, "train"))
    message = rf"{n_train} of {len(TEXTS)} evaluation documents of .*copy.* are training documents of .*chat"
    with pytest.raises(SourceError, match=message):
        check_apart(documents["chat"], documents["copy"])
    compared = check_apart(documents["chat"], documents["other"])
    assert (compared["training_documents"], compared["evaluation_documents"]) == (n_train, 50)
    assert (compared["near_duplicates"], compared["near_duplicate_share"]) == (0, 0.0)
    # No text is trained on in the second; and the same split of the same text, twice, has nothing on both sides.
    check_apart(documents["copy"], documents["chat"])
    again, _ = plain(tmp_path, name="again")
    check_apart(documents["chat"], again / "documents.parquet")


def test_a_wrapper_stands_around_each_window_whose_tokens_stay_the_same(tmp_path, folders):
    texts = [f"Text number {n}, with some words more." for n in range(60)]
    bare, corpus = plain(tmp_path, texts, max_document_tokens=16)
    wrapped, wrapper = plain(
        tmp_path, texts, name="wrapped", max_document_tokens=16, wrapper={"before": "User: ", "after": "?"}
    )
    assert texts_of(bare, "eval") == texts_of(wrapped, "eval")
    streams = []
    for folder, which in ((bare, corpus), (wrapped, wrapper)):
        tokenise_corpus(folder, folders["bare"], which, budget(4, 4), ["eval"], tmp_path / "t.h5")
        tokens = read_tokens(tmp_path / "t.h5", "eval")
        flat, documents = tokens.tokens.ravel(), tokens.document.ravel()
        streams.append([flat[documents == number].tolist() for number in range(4)])
    for plain_ids, wrapped_ids in zip(*streams, strict=True):
        assert wrapped_ids == [*byte_ids("User: "), *plain_ids[:-1], *byte_ids("?"), EOS]


def test_window_is_a_run_of_the_document_and_its_end():
    ids = list(range(100))
    assert window_of(ids, 3, 100) == ids
    windows = [window_of(ids, index, 10) for index in range(300)]
    for window in windows:
        assert window == [*range(window[0], window[0] + 9), 99]
    assert windows == [window_of(ids, index, 10) for index in range(300)]
    starts = {window[0] for window in windows}
    # 91 places, 300 draws: about 88 distinct ones are expected, from all parts of the document.
    assert len(starts) > 75
    assert min(starts) < 10
    assert max(starts) > 80


def test_a_file_of_documents_is_not_kept_as_it_is_read(tmp_path):
    """Text of random letters cannot be compressed; each row group has 256 documents of 2,000 letters."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("document_id", pa.string()), ("split", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "documents.parquet", schema) as writer:
        for _ in range(40):
            texts = [row.tobytes().decode() for row in rng.integers(40, 120, (256, 2000), np.uint8)]
            writer.write_table(pa.table([["id"] * 256, ["train"] * 256, texts], schema=schema))
    held, before = [], pa.total_allocated_bytes()
    with open_documents(tmp_path / "documents.parquet") as file:
        for _ in file.iter_batches(256, columns=["split", "text"]):
            held.append(pa.total_allocated_bytes())
    assert len(held) == 40
    assert max(held) - before < 10 * 256 * 2000
