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

Record = dict[str, Any]

_SUFFIXES = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"},
    **{".txt": "txt", ".md": "txt", ".xml": "mediawiki"},
}
_COMPRESSED = {".bz2": bz2.open, ".gz": gzip.open}
_BATCH_ROWS = 1024


class EndsEarlyError(SourceError):
    """The source stops in the middle of a record."""


def read_records(path: Path, format_: str) -> Iterator[Record]:
    """Records of a file, or of all files of the format in a folder, in order of name.

    Parts of the name before the format's suffix do not matter (``pages.xml-p10p30.bz2`` is MediaWiki XML). Raises
    SourceError when the file is missing, of no known format, or not what the format says; EndsEarlyError as above.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path} is missing: must be a file or folder with text")
    if path.is_file():
        yield from _read_file(path, format_ if format_ != "auto" else _format_of(path.name, path), whole=False)
        return
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    chosen = [(file, _known_format(file.name)) for file in files]
    chosen = [(file, known) for file, known in chosen if known and format_ in ("auto", known)]
    if not chosen:
        raise SourceError(f"{path}: the folder has no file of format {format_!r}; found {[f.name for f in files[:5]]}")
    for file, known in chosen:
        yield from _read_file(file, known, whole=True)


def hub_records(
    dataset: str, subset: str | None, split: str, commit: str, token: str | None, trim: int | None = None
) -> Iterator[Record]:
    """Records of a hub dataset at a commit, streamed; only data files are read, no code of the repository is run."""
    import datasets

    datasets.disable_progress_bars()
    try:
        stream = datasets.load_dataset(dataset, subset, split=split, revision=commit, token=token, streaming=True)
        yield from stream if trim is None else stream.take(trim)
    except SourceError:
        raise
    except Exception as error:  # the library lets errors of a dozen packages through
        raise SourceError(
            f"hub dataset {dataset!r} (subset {subset!r}, split {split!r}, commit {commit}) cannot be read: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; check subset and split, the "
            "network, and token_env if the dataset is gated"
        ) from error


def _known_format(name: str) -> str | None:
    """Format by suffix, seen through compression; archives are opened by `_read_file`."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    while suffixes and suffixes[-1] in (*_COMPRESSED, ".zip"):
        suffixes.pop()
    for suffix in reversed(suffixes):
        # Dumps are cut into parts named '….xml-p000000010p000030302'.
        known = _SUFFIXES.get(suffix.split("-")[0])
        if known:
            return known
    return "zip" if name.lower().endswith(".zip") else None


def _format_of(name: str, origin: Path) -> str:
    known = _known_format(name)
    if known is None:
        raise SourceError(f"{origin}: format unknown from the name {name!r}; set 'format' to one of the known formats")
    return known


def _read_file(path: Path, format_: str, whole: bool) -> Iterator[Record]:
    if path.suffix.lower() == ".zip":
        yield from _read_zip(path, format_)
        return
    if format_ == "parquet":
        yield from _parquet(path)
        return
    opener = _COMPRESSED.get(path.suffix.lower(), Path.open)
    with opener(path, "rb") as stream:
        yield from _decode(stream, format_, str(path), whole)


def _read_zip(path: Path, format_: str) -> Iterator[Record]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
            formats = {name: _known_format(name) for name in names}
            chosen = [name for name in names if formats[name] and format_ in ("auto", "zip", formats[name])]
            if not chosen:
                raise SourceError(f"{path}: the archive has no file of format {format_!r}; it holds {names[:5]}")
            for name in chosen:
                with archive.open(name) as stream:
                    yield from _decode(stream, formats[name], f"{path}/{name}", whole=len(chosen) > 1)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{path}: damaged archive ({error}); get the file again") from error


def _decode(stream: BinaryIO, format_: str, origin: str, whole: bool) -> Iterator[Record]:
    if format_ == "parquet":
        raise SourceError(f"{origin}: parquet inside another archive is not read; unpack it first")
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

    number = 0
    try:
        events = ijson.basic_parse(stream, use_float=True)
        first, _ = next(events, (None, None))
        if first != "start_array":
            raise SourceError(f"{origin}: expected a JSON array of records, found {first}; JSON lines are 'jsonl'")
        for record in _whole_values(events):
            number += 1
            yield _mapping(record, f"{origin}: record {number}")
    except ijson.JSONError as error:
        # Every fault has the same class in the C parser; only the wording tells a cut from a mistake.
        said = " ".join(str(error).split())
        if "premature EOF" in said or "ncomplete" in said:
            raise EndsEarlyError(f"{origin}: the array ends early, in record {number + 1}") from error
        raise SourceError(f"{origin}: not JSON after record {number} ({said[:200]})") from error


def _whole_values(events: Iterator[tuple[str, Any]]) -> Iterator[Any]:
    """Build the values of an array whose first event has been read."""
    from ijson.common import ObjectBuilder

    depth, builder = 0, ObjectBuilder()
    for event, value in events:
        if depth == 0 and event == "end_array":
            continue  # not the end yet: the parser still has to look for garbage behind it
        builder.event(event, value)
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if depth == 0:
            yield builder.value
            builder = ObjectBuilder()


def _mapping(record: Any, where: str) -> Record:
    if not isinstance(record, dict):
        raise SourceError(f"{where}: expected an object with fields, found {type(record).__name__}")
    return record


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: not a whole Parquet file ({error}); get the file again") from error


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
