"""Records of one open file, by format. A record beyond the limit, or what is not of the format, is an error."""

import csv
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from atlas.corpora.json_objects import describe_object
from atlas.corpora.text_units import TextUnits, text_records
from atlas.errors import SourceError

Record = dict[str, Any]

# Bytes of a line, and characters of a field: a document of this size is a mistake, and takes gigabytes to handle.
MAX_RECORD = 2**27
# Parquet rows are taken by so many bytes at once; their number is bounded too.
_BATCH_BYTES, _BATCH_ROWS = 2**26, 1024
_BOM = b"\xef\xbb\xbf"
DIVIDE = "divide it into documents before"


class EndsEarlyError(SourceError):
    """The source stops in the middle of a record."""


def decode(stream: BinaryIO, format_: str, origin: str, units: TextUnits) -> Iterator[Record]:
    """Records of an open file that is not Parquet; `units` say what a document of a text file is."""
    if format_ not in (*_READERS, "txt"):
        raise SourceError(f"{origin}: {format_} inside an archive is not read; unpack it first")
    try:
        if format_ == "txt":
            yield from text_records(io.TextIOWrapper(stream, encoding="utf-8-sig"), origin, units, MAX_RECORD)
        else:
            yield from _READERS[format_](stream, origin)
    except EOFError as error:
        raise EndsEarlyError(f"{origin}: the compressed data ends early") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{origin}: not UTF-8 (byte {error.object[error.start]:#04x}); convert the file to UTF-8"
        ) from error
    except (zlib.error, lzma.LZMAError, OSError) as error:
        if "Truncated compressed stream" in str(error):  # Arrow's word for it
            raise EndsEarlyError(f"{origin}: the compressed data ends early") from error
        raise SourceError(f"{origin}: cannot be read ({error}); get the file again") from error


def parquet(path: Path, origin: str) -> Iterator[Record]:
    """Rows of a Parquet file, few at a time where they are large."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:  # it keeps all row groups that were read
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
            rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(largest, 1))))
            for batch in file.iter_batches(rows):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise SourceError(f"{origin}: not a whole Parquet file ({error}); get the file again") from error


def _jsonl(stream: BinaryIO, origin: str) -> Iterator[Record]:
    number = 0
    while line := stream.readline(MAX_RECORD + 1):
        number += 1
        if len(line) > MAX_RECORD:
            raise SourceError(f"{origin}: line {number} is longer than {MAX_RECORD:,} bytes; {DIVIDE}")
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
    if buffered.peek(len(_BOM)).startswith(_BOM):
        buffered.read(len(_BOM))
    start = buffered.peek(1024).lstrip()[:1]
    if start == b"{":
        raise SourceError(f"{origin}: {describe_object(buffered.read(2**20), Path(origin).name)}")
    if start not in (b"[", b""):
        raise SourceError(
            f"{origin}: expected a JSON array of records, found text that begins with {start.decode('latin-1')!r}; "
            "name its format in 'format'"
        )
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


def _csv(stream: BinaryIO, origin: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD)  # an article is one field
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
        if "field limit" in str(error):
            raise SourceError(
                f"{origin}: record {number + 1} has a field of more than {MAX_RECORD:,} characters; {DIVIDE}, or close "
                "its quotation mark"
            ) from error
        raise SourceError(f"{origin}: not CSV after record {number} ({error})") from error


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


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "mediawiki": _mediawiki,
}
