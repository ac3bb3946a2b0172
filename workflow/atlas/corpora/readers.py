"""Records of a source, one after the other: files of every format, in archives or folders, and hub datasets.

A record is a mapping of field names to values. Nothing is guessed: what cannot be read as the stated format is an
error that names the file. A source that stops in the middle of a record yields its whole records and then raises
`EndsEarlyError`, so that the caller decides, and says, whether that is acceptable.
"""

import bz2
import csv
import gzip
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from atlas.errors import SourceError
from atlas.sources.hub import without_queries

Record = dict[str, Any]

_SUFFIXES = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"},
    **{".txt": "txt", ".md": "txt", ".xml": "mediawiki"},
}
_FORMATS = sorted(set(_SUFFIXES.values()))
_COMPRESSED = {".bz2": bz2.open, ".gz": gzip.open}
_BATCH_ROWS = 1024


class EndsEarlyError(SourceError):
    """The source stops in the middle of a record."""


def read_records(path: Path, format_: str, origin: str | None = None) -> Iterator[Record]:
    """Records of a file, or of all files of the format in a folder, in order of name; errors call it `origin`.

    Parts of the name behind the format's suffix do not matter (``pages.xml-p10p30.bz2`` is MediaWiki XML). Raises
    SourceError when the file is missing, of no known format, or not what the format says; EndsEarlyError as above.
    """
    path = Path(path)
    origin = origin or str(path)
    if not path.exists():
        raise SourceError(f"{origin} is missing: must be a file or folder with text")
    if path.is_file():
        if format_ == "auto" and _known_format(path.name) is None:
            raise SourceError(f"{origin}: the name tells no format; set 'format' to one of {_FORMATS}")
        yield from _read_file(path, format_, origin, whole=False)
        return
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    chosen = [file for file in files if _fits(file.name, format_)]
    if not chosen:
        raise SourceError(f"{origin}: no file of format {format_!r} in the folder; found {[f.name for f in files[:5]]}")
    for file in chosen:
        yield from _read_file(file, format_, f"{origin}/{file.relative_to(path).as_posix()}", whole=True)


def hub_records(dataset: str, subset: str | None, split: str, commit: str, token: str | None) -> Iterator[Record]:
    """Records of a hub dataset at a commit, streamed; only data files are read, no code of the repository is run."""
    import datasets

    datasets.disable_progress_bars()
    try:
        yield from datasets.load_dataset(dataset, subset, split=split, revision=commit, token=token, streaming=True)
    except Exception as error:  # the library lets the errors of a dozen packages through
        said = without_queries(next(iter(str(error).splitlines()), ""))
        raise SourceError(
            f"hub dataset {dataset!r} (subset {subset!r}, split {split!r}, commit {commit}) cannot be read: "
            f"{type(error).__name__}: {said}; check subset and split, the network, and token_env if it is gated"
        ) from error


def _known_format(name: str) -> str | None:
    """Format by suffix, seen through compression; 'zip' when only the archive's content tells."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    packed = suffixes[-1:] == [".zip"]
    while suffixes and suffixes[-1] in (*_COMPRESSED, ".zip"):
        suffixes.pop()
    # Dumps are cut into parts named '….xml-p000000010p000030302'.
    known = [_SUFFIXES[part] for suffix in suffixes if (part := suffix.split("-")[0]) in _SUFFIXES]
    return known[-1] if known else "zip" if packed else None


def _fits(name: str, format_: str) -> bool:
    known = _known_format(name)
    return known is not None and (format_ == "auto" or known in (format_, "zip"))


def _read_file(path: Path, format_: str, origin: str, whole: bool) -> Iterator[Record]:
    if path.suffix.lower() == ".zip":
        yield from _read_zip(path, format_, origin)
        return
    format_ = _known_format(path.name) if format_ == "auto" else format_
    if format_ == "parquet":
        yield from _parquet(path, origin)
        return
    opener = _COMPRESSED.get(path.suffix.lower(), Path.open)
    with opener(path, "rb") as stream:
        yield from _decode(stream, format_, origin, whole)


def _read_zip(path: Path, format_: str, origin: str) -> Iterator[Record]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
            chosen = [name for name in names if _fits(name, format_)]
            if not chosen:
                raise SourceError(f"{origin}: the archive has no file of format {format_!r}; it holds {names[:5]}")
            for name in chosen:
                with archive.open(name) as stream:
                    member_format = _known_format(name) if format_ == "auto" else format_
                    yield from _decode(stream, member_format, f"{origin}/{name}", whole=len(chosen) > 1)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{origin}: damaged archive ({error}); get the file again") from error


def _decode(stream: BinaryIO, format_: str, origin: str, whole: bool) -> Iterator[Record]:
    if format_ not in _READERS:
        raise SourceError(f"{origin}: {format_} inside an archive is not read; unpack it first")
    reader: Callable[..., Iterator[Record]] = _READERS[format_]
    try:
        yield from reader(stream, origin, **({"whole": whole} if format_ == "txt" else {}))
    except EOFError as error:
        raise EndsEarlyError(f"{origin}: the compressed data ends early") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{origin}: not UTF-8 (byte {error.object[error.start]:#04x}); convert the file to UTF-8"
        ) from error
    except (zlib.error, OSError) as error:
        raise SourceError(f"{origin}: cannot be read ({error}); get the file again") from error


def _jsonl(stream: BinaryIO, origin: str) -> Iterator[Record]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if not line.endswith(b"\n"):
                raise EndsEarlyError(f"{origin}: line {number}, the last, is cut off") from error
            raise SourceError(f"{origin}: line {number} is not JSON ({error})") from error
        yield _mapping(record, f"{origin}: line {number}")


def _json(stream: BinaryIO, origin: str) -> Iterator[Record]:
    import ijson

    buffered = io.BufferedReader(stream)
    start = buffered.peek(1024).lstrip()[:1]
    if start not in (b"[", b""):
        raise SourceError(f"{origin}: expected a JSON array of records, found {start!r}; JSON lines are format 'jsonl'")
    number = 0
    try:
        for record in ijson.items(buffered, "item", use_float=True):
            number += 1
            yield _mapping(record, f"{origin}: record {number}")
    except ijson.JSONError as error:
        # Every fault has the same class in the C parser; only the wording tells a cut from a mistake.
        said = error.args[0] if error.args else ""
        said = " ".join((said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).split())
        if "premature EOF" in said or "ncomplete JSON" in said:
            raise EndsEarlyError(f"{origin}: the array ends early, in record {number + 1}") from error
        raise SourceError(f"{origin}: not JSON after record {number} ({said[:200]})") from error


def _mapping(record: Any, where: str) -> Record:
    if not isinstance(record, dict):
        raise SourceError(f"{where}: expected an object with fields, found {type(record).__name__}")
    return record


def _parquet(path: Path, origin: str) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise SourceError(f"{origin}: not a whole Parquet file ({error}); get the file again") from error


def _csv(stream: BinaryIO, origin: str) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)  # an article is one field
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    name = origin.lower()
    delimiter = "\t" if ".tsv" in name else ","
    reader = csv.DictReader(text, delimiter=delimiter, strict=True, restkey="")
    number = 0
    try:
        for record in reader:
            number += 1
            if "" in record or None in record.values():
                raise SourceError(
                    f"{origin}: record {number} (line {reader.line_num}) has another number of fields than the header "
                    f"{reader.fieldnames}; quote fields that hold {delimiter!r}"
                )
            yield record
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise EndsEarlyError(f"{origin}: the file ends early, in record {number + 1}") from error
        raise SourceError(f"{origin}: not CSV after record {number} ({error})") from error


def _txt(stream: BinaryIO, origin: str, whole: bool) -> Iterator[Record]:
    """One record per file where there are several; else one per block of lines between blank lines."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    if whole:
        yield {"text": text.read(), "file": origin}
        return
    block: list[str] = []
    for line in text:
        if line.strip():
            block.append(line)
        elif block:
            yield {"text": "".join(block).rstrip("\n")}
            block = []
    if block:
        yield {"text": "".join(block).rstrip("\n")}


def _mediawiki(stream: BinaryIO, origin: str) -> Iterator[Record]:
    """Articles of a MediaWiki dump as plain text: namespace 0, no redirects."""
    from atlas.corpora.wikitext import strip_markup

    try:
        root = None
        for event, element in ElementTree.iterparse(stream, ("start", "end")):
            root = element if root is None else root
            if event == "start" or element.tag.rsplit("}", 1)[-1] != "page":
                continue
            title, namespace = (element.findtext(f"{{*}}{name}", "") for name in ("title", "ns"))
            if namespace == "0" and element.find("{*}redirect") is None:
                yield {"title": title, "text": strip_markup(element.findtext("{*}revision/{*}text", ""))}
            root.clear()  # pages that were read stay in memory otherwise
    except ElementTree.ParseError as error:
        if "no element found" in str(error) or "unclosed" in str(error):
            raise EndsEarlyError(f"{origin}: the XML ends early ({error})") from error
        raise SourceError(f"{origin}: not XML ({error})") from error


_READERS = {"jsonl": _jsonl, "json": _json, "csv": _csv, "txt": _txt, "mediawiki": _mediawiki}
