"""The tokens of a corpus for one tokenizer: one HDF5 file with a group per split."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from atlas.corpora.packing import BLOCK_TOKENS, Packed, pack
from atlas.errors import DamagedFileError, SourceError
from atlas.files import AGAIN, read_json, sha256_strings
from atlas.hdf5 import mapped, open_sealed, reserved_hdf5
from atlas.progress import progress
from atlas.sealed import verify
from atlas.tables import open_parquet

log = logging.getLogger(__name__)

_BATCH_DOCUMENTS = 256
_DATASETS = {"tokens": np.dtype(np.uint32), "document": np.dtype(np.int32), "counted": np.dtype(np.bool_)}


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Packed contexts of one split of a corpus.

    `document` indexes the split's documents in the order of documents.parquet (−1: put around a context by the
    tokenizer); `counted` is False for special tokens, which no metric and no training looks at; `fingerprint` is the
    SHA-256 of tokens and documents. The arrays are read from disk where they are looked at.
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
    context is longer than the model's positions. Memory does not grow with the budget.
    """
    corpus_folder, model_folder = Path(corpus_folder), Path(model_folder)
    summary = read_json(corpus_folder / "corpus.json")
    encoder = make_encoder(model_folder, corpus.template, corpus.chat_date)
    _check_length(budget.context_length, model_folder, encoder)
    shapes = {s: (budget.tokens(s) // budget.context_length, budget.context_length) for s in splits}
    with reserved_hdf5(target, datasets_of(shapes)) as file:
        file.attrs.update(
            corpus=summary["name"],
            template=corpus.template,
            context_length=budget.context_length,
            tokenizer_sha256=tokenizer_sha256(model_folder),
            **_chat_date(corpus),
        )
        for split in splits:
            taken = _Taken()
            documents = _encoded(corpus_folder / "documents.parquet", split, encoder, corpus, taken)
            name, n_contexts = summary["name"], budget.tokens(split) // budget.context_length
            with progress(budget.tokens(split), f"tokenise {name} {split}", "token") as shown:
                blocks = pack(documents, encoder, n_contexts, budget.context_length)
                taken.n_contexts = write_split(file[split], blocks, shown.update)
            _require_enough(name, split, budget, taken)
            file[split].attrs["corpus_fingerprint"] = summary["fingerprint"][split]
            file[split].attrs["refused_documents"] = taken.n_refused
    log.info("tokens of %s: %s in %s", summary["name"], {s: budget.tokens(s) for s in splits}, target)


def read_tokens(path: Path, split: str) -> TokenSplit:
    """Read one split; raises SourceError when the file is missing, damaged, altered, or has no such split."""
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"{path} is missing: run the rule that tokenises this corpus")
    try:
        sealed = verify(path)
        with open_sealed(path) as file:
            if split not in file:
                raise SourceError(f"{path} has no split {split!r}, only {sorted(file)}; {AGAIN}")
            group = file[split]
            arrays = [mapped(group[name]) for name in _DATASETS]
            fingerprint, corpus, length = group.attrs["fingerprint"], file.attrs["corpus"], file.attrs["context_length"]
    except DamagedFileError as error:
        raise SourceError(str(error)) from error
    tokens, document, counted = arrays
    expected = (len(tokens), int(length))
    if any(array.shape != expected for array in arrays) or counted.dtype != np.bool_:
        raise SourceError(f"{path}: {split} has shapes {[a.shape for a in arrays]}, expected {expected}; {AGAIN}")
    # A checksum says the same of the whole file, faster.
    if not sealed and fingerprint_of(tokens, document) != fingerprint:
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


def fingerprint_of(tokens: np.ndarray | h5py.Dataset, document: np.ndarray | h5py.Dataset) -> str:
    """SHA-256 of tokens (uint32) and document indices (int32), little-endian, row by row."""
    digest = hashlib.sha256()
    for array, kind in ((tokens, "<u4"), (document, "<i4")):
        step = max(1, BLOCK_TOKENS // array.shape[1])
        for first in range(0, len(array), step):
            digest.update(np.ascontiguousarray(array[first : first + step], kind).data)
    return digest.hexdigest()


def write_split(group: h5py.Group, blocks: Iterable[Packed], shown: Callable[[int], object] = lambda n: None) -> int:
    """Fill the datasets of a split, and return how many contexts there were; `shown` is told of each block's tokens."""
    written = 0
    for block in blocks:
        end = written + len(block.tokens)
        for name in _DATASETS:
            group[name][written:end] = getattr(block, name)
        written = end
        shown(block.tokens.size)
    group.attrs["fingerprint"] = fingerprint_of(group["tokens"], group["document"])
    return written


def datasets_of(splits: Mapping[str, tuple[int, int]]) -> dict[str, tuple[tuple[int, int], np.dtype]]:
    """Datasets of a token file, by the contexts and the context length of each split."""
    return {f"{split}/{name}": (shape, kind) for split, shape in splits.items() for name, kind in _DATASETS.items()}


@dataclass
class _Taken:
    """Count of a split's documents and tokens that were used."""

    n_documents: int = 0
    n_refused: int = 0
    n_tokens: int = 0
    n_contexts: int = 0


def _encoded(
    documents: Path, split: str, encoder: Encoder, corpus: Corpus, taken: _Taken
) -> Iterator[tuple[int, list[int]]]:
    """Index and ids of each document that the template does not refuse; counted in `taken`."""
    longest = corpus.max_document_tokens
    before, after = _wrapper_ids(corpus, encoder)
    for first, texts in _texts(documents, split):
        for index, ids in enumerate(encoder.encode(texts), start=first):
            if ids is None:
                taken.n_refused += 1
                continue
            window = ids if longest is None else window_of(ids, index, longest)
            window = [*before, *window[:-1], *after, window[-1]]
            taken.n_documents, taken.n_tokens = taken.n_documents + 1, taken.n_tokens + len(window)
            yield index, window


def _require_enough(name: str, split: str, budget: TokenBudget, taken: _Taken) -> None:
    """Raise SourceError where the template refused most documents, or the documents ran out."""
    refused, n_documents = taken.n_refused, taken.n_documents
    if refused > n_documents:
        raise SourceError(
            f"corpus {name}: the model's chat template refuses {refused} of {refused + n_documents} documents "
            f"of {split} (roles in an order it does not allow, say); use template 'conversation' instead"
        )
    if refused:
        log.warning("corpus %s %s: the chat template refuses %d documents, left out", name, split, refused)
    if taken.n_contexts * budget.context_length < budget.tokens(split):
        raise SourceError(
            f"corpus {name}: {split} has {taken.n_tokens:,} tokens, {taken.n_contexts} whole contexts of "
            f"{budget.context_length}; the model's harvest asks for {split}_tokens: {budget.tokens(split):,}. "
            f"Lower it to at most {taken.n_contexts * budget.context_length:,}, or give the corpus more text"
        )


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
