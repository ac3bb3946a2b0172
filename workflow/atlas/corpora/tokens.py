"""The tokens of a corpus for one tokenizer: one HDF5 file with a group per split."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool
from jaxtyping import Integer as Int

from atlas.config.corpora import Corpus
from atlas.config.data import TokenBudget
from atlas.corpora.encoding import Encoder, make_encoder, tokenizer_sha256
from atlas.corpora.packing import Packed, pack
from atlas.errors import DamagedFileError, SourceError
from atlas.files import AGAIN, read_json, sha256_strings
from atlas.hdf5 import new_hdf5, open_sealed
from atlas.progress import progress
from atlas.tables import open_parquet

log = logging.getLogger(__name__)

_BATCH_DOCUMENTS = 256


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Packed contexts of one split of a corpus.

    `document` indexes the split's documents in the order of documents.parquet (−1: put around a context by the
    tokenizer); `counted` is False for special tokens, which no metric and no training looks at; `fingerprint` is the
    SHA-256 of tokens and documents.
    """

    tokens: Int[np.ndarray, "contexts position"]
    document: Int[np.ndarray, "contexts position"]
    counted: Bool[np.ndarray, "contexts position"]
    fingerprint: str
    corpus: str
    split: str
    context_length: int


def tokenise_corpus(
    corpus_folder: Path,
    model_folder: Path,
    corpus: Corpus,
    budget: TokenBudget,
    splits: Sequence[str],
    target: Path,
) -> None:
    """Write exactly ``budget.tokens(split)`` tokens of each split to the HDF5 file `target`.

    Documents are taken in order of their hash, hence as a uniform sample, and only as many as are needed. Raises
    SourceError when a split has fewer tokens than its budget, the tokenizer cannot serve the corpus' template, or the
    context is longer than the model's positions.
    """
    corpus_folder, model_folder = Path(corpus_folder), Path(model_folder)
    summary = read_json(corpus_folder / "corpus.json")
    encoder = make_encoder(model_folder, corpus.template, corpus.chat_date)
    _check_length(budget.context_length, model_folder, encoder)
    with new_hdf5(target) as file:
        file.attrs.update(
            corpus=summary["name"],
            template=corpus.template,
            context_length=budget.context_length,
            tokenizer_sha256=tokenizer_sha256(model_folder),
            **_chat_date(corpus),
        )
        for split in splits:
            packed, refused = _pack_split(corpus_folder, summary["name"], split, encoder, budget, corpus)
            group = file.create_group(split)
            group.attrs["corpus_fingerprint"] = summary["fingerprint"][split]
            group.attrs["refused_documents"] = refused
            _write_split(group, packed)
    log.info("tokens of %s: %s in %s", summary["name"], {s: budget.tokens(s) for s in splits}, target)


def read_tokens(path: Path, split: str) -> TokenSplit:
    """Read one split; raises SourceError when the file is missing, damaged, altered, or has no such split."""
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"{path} is missing: run the rule that tokenises this corpus")
    try:
        with open_sealed(path) as file:
            if split not in file:
                raise SourceError(f"{path} has no split {split!r}, only {sorted(file)}; {AGAIN}")
            group = file[split]
            arrays = [group[name][...] for name in ("tokens", "document", "counted")]
            fingerprint, corpus, length = group.attrs["fingerprint"], file.attrs["corpus"], file.attrs["context_length"]
    except DamagedFileError as error:
        raise SourceError(str(error)) from error
    tokens, document, counted = arrays
    expected = (len(tokens), int(length))
    if any(array.shape != expected for array in arrays) or counted.dtype != np.bool_:
        raise SourceError(f"{path}: {split} has shapes {[a.shape for a in arrays]}, expected {expected}; {AGAIN}")
    if fingerprint_of(tokens, document) != fingerprint:
        raise SourceError(f"{path}: the tokens of {split} are not those of its fingerprint {fingerprint}; {AGAIN}")
    return TokenSplit(tokens, document, counted, str(fingerprint), str(corpus), split, int(length))


def window_of(ids: list[int], index: int, longest: int) -> list[int]:
    """At most `longest` tokens of a document: consecutive ones from a place that its index decides, and its last token.

    The last token is what separates it from the next document. Not the beginning, because documents begin alike.
    """
    if len(ids) <= longest:
        return ids
    places = len(ids) - longest + 1
    start = int(sha256_strings(["window", str(index)])[:12], 16) % places
    return [*ids[start : start + longest - 1], ids[-1]]


def fingerprint_of(tokens: np.ndarray, document: np.ndarray) -> str:
    """SHA-256 of tokens (uint32) and document indices (int32), little-endian, row by row."""
    digest = hashlib.sha256(np.ascontiguousarray(tokens, "<u4"))
    digest.update(np.ascontiguousarray(document, "<i4"))
    return digest.hexdigest()


def _pack_split(
    folder: Path, name: str, split: str, encoder: Encoder, budget: TokenBudget, corpus: Corpus
) -> tuple[Packed, int]:
    """Contexts of a split, and how many of its documents the chat template refused."""
    n_contexts, longest = budget.tokens(split) // budget.context_length, corpus.max_document_tokens
    before, after = _wrapper_ids(corpus, encoder)
    refused: list[int] = []
    taken: list[int] = []
    with progress(budget.tokens(split), f"tokenise {name} {split}", "token") as shown:

        def encoded() -> Iterator[tuple[int, list[int]]]:
            for first, texts in _texts(folder / "documents.parquet", split):
                for index, ids in enumerate(encoder.encode(texts), start=first):
                    if ids is None:
                        refused.append(index)
                        continue
                    window = ids if longest is None else window_of(ids, index, longest)
                    window = [*before, *window[:-1], *after, window[-1]]
                    taken.append(len(window))
                    shown.update(len(window))
                    yield index, window

        packed = pack(encoded(), encoder, n_contexts, budget.context_length)
    if len(refused) > len(taken):
        raise SourceError(
            f"corpus {name}: the model's chat template refuses {len(refused)} of {len(refused) + len(taken)} documents "
            f"of {split} (roles in an order it does not allow, say); use template 'conversation' instead"
        )
    if refused:
        log.warning("corpus %s %s: the chat template refuses %d documents, left out", name, split, len(refused))
    if packed.n_filled < n_contexts:
        raise SourceError(
            f"corpus {name}: {split} has {sum(taken):,} tokens, {packed.n_filled} whole contexts of "
            f"{budget.context_length}; the model's harvest asks for {split}_tokens: {budget.tokens(split):,}. "
            f"Lower it to at most {packed.n_filled * budget.context_length:,}, or give the corpus more text"
        )
    return packed, len(refused)


def _chat_date(corpus: Corpus) -> dict[str, str]:
    """The day of the text, where a chat template may write it."""
    return {"chat_date": corpus.chat_date.isoformat()} if corpus.template == "chat_template" else {}


def _wrapper_ids(corpus: Corpus, encoder: Encoder) -> tuple[list[int], list[int]]:
    """Tokens before and after every document; without what the encoder puts behind a text."""
    if corpus.wrapper is None:
        return [], []
    ids = encoder.encode([corpus.wrapper.before, corpus.wrapper.after])
    before, after = cast(list[list[int]], ids)  # without a chat template no text is refused
    return before[:-1], after[:-1]


def _texts(documents: Path, split: str) -> Iterator[tuple[int, list[str]]]:
    """Batches of a split's texts with the index of the first of each."""
    first = 0
    with open_documents(documents) as file:
        for batch in file.iter_batches(_BATCH_DOCUMENTS, columns=["split", "text"]):
            columns: dict[str, list[Any]] = batch.to_pydict()
            pairs = zip(columns["split"], columns["text"], strict=True)
            texts = [text for of, text in pairs if of == split]
            if texts:
                yield first, texts
            first += len(texts)


@contextmanager
def open_documents(path: Path) -> Iterator[pq.ParquetFile]:
    """The documents of a corpus, whose checksums are verified as they are read."""
    if not Path(path).is_file():
        raise SourceError(f"{path} is missing: run the rule that builds this corpus")
    try:
        with open_parquet(path) as file:
            yield file
    except DamagedFileError as error:
        raise SourceError(str(error)) from error


def _write_split(group: h5py.Group, packed: Packed) -> None:
    for name in ("tokens", "document", "counted"):
        group.create_dataset(name, data=getattr(packed, name), fletcher32=True)
    group.attrs["fingerprint"] = fingerprint_of(packed.tokens, packed.document)


def _check_length(context_length: int, model_folder: Path, encoder: Encoder) -> None:
    framed = len(encoder.prefix) + len(encoder.suffix)
    if context_length <= framed:
        raise SourceError(f"context_length {context_length} leaves no room beside {framed} special tokens; raise it")
    path = model_folder / "identity.json"
    limit = read_json(path).get("longest_context") if path.is_file() else None
    if limit is not None and context_length > limit:
        raise SourceError(
            f"harvest.context_length is {context_length}, but the model has positions for {limit} tokens "
            f"({path}: longest_context): lower it to at most {limit}"
        )
