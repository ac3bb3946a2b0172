"""Tokenised corpora: documents packed into contexts of one length, without padding, boundaries kept."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from atlas.config.data import Corpus, TokenBudget
from atlas.corpora.documents import DOCUMENTS_FILE, SUMMARY_FILE
from atlas.errors import SourceError
from atlas.files import atomic_path, read_json, sha256_strings
from atlas.models.load import load_tokenizer

FORMAT, FORMAT_VERSION = "sae-atlas-tokens", 1
_BATCH_DOCUMENTS = 64
# Token that belongs to no document: what the tokenizer puts around every context.
_NO_DOCUMENT = -1


@dataclass(frozen=True)
class TokenSplit:
    """One split of a corpus as whole contexts; all arrays are (n_contexts, context_length).

    `document` is the index of each token's document in the split, −1 for tokens around a context; `counted` is False
    for special tokens. `fingerprint` names the content.
    """

    tokens: np.ndarray
    document: np.ndarray
    counted: np.ndarray
    fingerprint: str
    corpus: str
    split: str
    context_length: int


def tokenise_corpus(
    corpus_folder: Path, model_folder: Path, corpus: Corpus, budget: TokenBudget, splits: Sequence[str], target: Path
) -> None:
    """Pack as many documents as the budget needs, in the corpus' order, and write them to the HDF5 file `target`.

    A context is the tokens that the tokenizer puts in front of text (Llama 3: BOS, BERT: [CLS], SmolLM2: none),
    consecutive documents with a separator after each, and the tokens that it puts behind. Text that spells a special
    token stays text, but for the model's own chat template. Raises SourceError when a split has fewer tokens than its
    budget, or the template is missing.
    """
    tokenizer = load_tokenizer(model_folder)
    summary = read_json(Path(corpus_folder) / SUMMARY_FILE)
    table = pd.read_parquet(Path(corpus_folder) / DOCUMENTS_FILE)
    with atomic_path(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "corpus": summary["name"]})
        file.attrs["tokenizer_sha256"] = read_json(Path(model_folder) / "identity.json")["tokenizer_sha256"]
        file.attrs["template"] = corpus.template
        for split in splits:
            texts = table.loc[table.split == split, "text"].tolist()
            packed = _pack(tokenizer, corpus, texts, budget, split, summary["name"])
            _write(file.create_group(split), packed, summary["fingerprint"][split])


def read_tokens(path: Path, split: str) -> TokenSplit:
    """Read one split; raises SourceError when the file is damaged or lacks it."""
    remedy = "delete this file and run again"
    try:
        with h5py.File(path, "r") as file:
            if (file.attrs.get("format"), file.attrs.get("format_version")) != (FORMAT, FORMAT_VERSION):
                raise SourceError(f"{path}: not a token file of version {FORMAT_VERSION}; {remedy}")
            if split not in file:
                raise SourceError(f"{path}: has no split {split!r}, only {', '.join(file)}; {remedy}")
            group = file[split]
            columns = {name: group[name][:] for name in ("tokens", "document", "counted")}
            fingerprint, corpus = group.attrs["fingerprint"], file.attrs["corpus"]
    except (OSError, KeyError, RuntimeError) as error:
        raise SourceError(f"{path}: missing, truncated or altered ({error}); {remedy}") from error
    if _fingerprint(columns["tokens"], columns["document"]) != fingerprint:
        raise SourceError(f"{path}: tokens of split {split!r} differ from their fingerprint; {remedy}")
    columns["counted"] = columns["counted"].astype(bool)
    return TokenSplit(
        **columns, fingerprint=fingerprint, corpus=corpus, split=split, context_length=columns["tokens"].shape[1]
    )


def check_distinct(documents: Path, others: Sequence[Path]) -> None:
    """Raise SourceError when a corpus has an evaluation document that another one trains on, or the other way round.

    Document ids are hashes of the content, so the same text is found under another name, file or template.
    """
    mine = pd.read_parquet(documents, columns=["document_id", "split"])
    for other in others:
        theirs = pd.read_parquet(other, columns=["document_id", "split"])
        for one, two, places in ((mine, theirs, (documents, other)), (theirs, mine, (other, documents))):
            evaluated = set(one.document_id[one.split == "eval"])
            both = evaluated & set(two.document_id[two.split == "train"])
            if both:
                raise SourceError(
                    f"{places[0]}: {len(both)} of {len(evaluated)} evaluation documents are training documents of "
                    f"{places[1]} (for example {min(both)[:12]}…): an SAE would be judged on what it was trained on; "
                    "use other text, or a filter that keeps them apart"
                )


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around a context, and between documents."""

    prefix: list[int]
    suffix: list[int]
    separator: list[int]


def _frame(tokenizer: PreTrainedTokenizerBase) -> _Frame:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
    separator = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if separator is None:
        raise SourceError(f"tokenizer {tokenizer.name_or_path} has neither an EOS nor a SEP token to part documents")
    return _Frame(framed[:start], framed[start + len(plain) :], [separator])


def _pack(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, texts: list[str], budget: TokenBudget, split: str, name: str
) -> dict[str, np.ndarray]:
    frame, length = _frame(tokenizer), budget.context_length
    body = length - len(frame.prefix) - len(frame.suffix)
    n_contexts = budget.tokens(split) // length
    pieces, total = [], 0
    for number, ids in enumerate(_encode(tokenizer, corpus, texts)):
        piece = np.array([*ids, *frame.separator], dtype=np.uint32)
        pieces.append((piece, np.full(len(piece), number, dtype=np.int32)))
        total += len(piece)
        if total >= n_contexts * body:
            break
    if total < n_contexts * body:
        available = total // body * length
        raise SourceError(
            f"corpus {name!r}: its {split} split has {len(texts)} documents, {available:,} tokens in whole contexts of "
            f"{length}; {split}_tokens is {budget.tokens(split):,}; lower it, change eval_fraction, or add text"
        )
    tokens, document = (
        np.concatenate(column)[: n_contexts * body].reshape(n_contexts, body) for column in zip(*pieces, strict=True)
    )
    tokens = _surround(tokens, frame.prefix, frame.suffix)
    document = _surround(document, [_NO_DOCUMENT] * len(frame.prefix), [_NO_DOCUMENT] * len(frame.suffix))
    return {"tokens": tokens, "document": document, "counted": ~np.isin(tokens, tokenizer.all_special_ids)}


def _surround(body: np.ndarray, prefix: list[int], suffix: list[int]) -> np.ndarray:
    sides = (np.tile(np.array(side, dtype=body.dtype), (len(body), 1)) for side in (prefix, suffix))
    before, after = sides
    return np.concatenate([before, body, after], axis=1)


def _encode(tokenizer: PreTrainedTokenizerBase, corpus: Corpus, texts: list[str]) -> Iterator[list[int]]:
    """Token ids of each document, without special tokens but those of a chat template."""
    chat = corpus.template == "chat_template"
    if chat and not tokenizer.chat_template:
        raise SourceError(
            f"template is 'chat_template', but tokenizer {tokenizer.name_or_path} has no chat template; use 'conversation'"
        )
    for start in range(0, len(texts), _BATCH_DOCUMENTS):
        batch = texts[start : start + _BATCH_DOCUMENTS]
        if chat:
            batch = [tokenizer.apply_chat_template(json.loads(text), tokenize=False) for text in batch]
        # split_special_tokens: text that spells <|im_end|> is that text, not the end of a message.
        encoded = tokenizer(batch, add_special_tokens=False, split_special_tokens=not chat, verbose=False)
        yield from encoded["input_ids"]


def _write(group: h5py.Group, packed: dict[str, np.ndarray], documents_fingerprint: str) -> None:
    for name, values in packed.items():
        group.create_dataset(name, data=values.astype(np.uint8) if values.dtype == bool else values)
    group.attrs["fingerprint"] = _fingerprint(packed["tokens"], packed["document"])
    group.attrs["documents_fingerprint"] = documents_fingerprint


def _fingerprint(tokens: np.ndarray, document: np.ndarray) -> str:
    """Hash of the tokens and of where documents begin; the same text in another corpus has the same one."""
    return sha256_strings([str(tokens.shape), tokens.tobytes().hex(), document.tobytes().hex()])
