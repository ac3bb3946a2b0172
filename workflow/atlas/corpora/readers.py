"""Records of a source, one after the other: files of every format, in archives or folders, and hub datasets.

A record is a mapping of field names to values. Nothing is guessed: what cannot be read as the stated format is an
error that names the file. A source that stops in the middle of a record yields its whole records and then raises
`EndsEarlyError`, so that the caller decides, and says, whether that is acceptable.
"""

import bz2
import gzip
import logging
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from atlas.corpora.formats import DIVIDE, EndsEarlyError, Record, decode, parquet
from atlas.corpora.text_units import TextUnits
from atlas.errors import SourceError
from atlas.sources.hub import without_queries

__all__ = ["EndsEarlyError", "Record", "hub_records", "read_records"]

log = logging.getLogger(__name__)

_SUFFIXES = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"},
    **{".txt": "txt", ".md": "txt", ".xml": "mediawiki"},
}
_FORMATS = sorted(set(_SUFFIXES.values()))
# Text files that say what a folder or an archive holds, by the names that people give them.
_ABOUT = frozenset("readme license licence copying notice changelog changes citation contributing authors".split())

Named = TypeVar("Named", Path, str)


def _open_zstandard(packed: BinaryIO) -> BinaryIO:
    import pyarrow

    return BufferedReader(pyarrow.CompressedInputStream(packed, "zstd"))  # Arrow's stream has no lines of its own


_COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    **{".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open, ".lzma": lzma.open},
    **{".zst": _open_zstandard, ".zstd": _open_zstandard},
}
_NOT_READ = frozenset(".lz4 .br .7z .rar .tar .tgz .tbz2 .txz .snappy .sz .z .lz .lzo".split())


def read_records(
    path: Path,
    format_: str,
    origin: str | None = None,
    units: TextUnits | None = None,
    left_out: list[str] | None = None,
) -> Iterator[Record]:
    """Records of a file, or of all files of the format in a folder, in order of name; errors call it `origin`.

    Parts of the name behind the format's suffix do not matter (``pages.xml-p10p30.bz2`` is MediaWiki XML). `units` say
    what a document of a text file is. Files that tell about a folder or an archive (README, LICENSE) are no documents:
    their names go to `left_out`. Raises SourceError when the file is missing, of no known format, or not what the
    format says; EndsEarlyError as above.
    """
    path, units, number = Path(path), units or TextUnits(), 0
    origin = origin or str(path)
    try:
        for record in _read(path, format_, origin, units, [] if left_out is None else left_out):
            number += 1
            yield record
    except MemoryError as error:
        raise SourceError(
            f"{origin}: the record after record {number} needs more memory than there is ({error}); {DIVIDE}"
        ) from error


def _read(path: Path, format_: str, origin: str, units: TextUnits, left_out: list[str]) -> Iterator[Record]:
    if not path.exists():
        raise SourceError(f"{origin} is missing: must be a file or folder with text")
    if path.is_file():
        if format_ == "auto" and _known_format(path.name) is None:
            raise SourceError(f"{origin}: the name tells no format; set 'format' to one of {_FORMATS}")
        yield from _read_file(path, format_, origin, replace(units, file=path.name), left_out)
        return
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    chosen = _choose(files, format_, origin, left_out)
    for file in chosen:
        name = file.relative_to(path).as_posix()
        of_file = replace(units, several=len(chosen) > 1, file=name)
        yield from _read_file(file, format_, f"{origin}/{name}", of_file, left_out)


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


def _choose(files: Sequence[Named], format_: str, where: str, left_out: list[str]) -> list[Named]:
    """The files of a folder or archive that hold documents."""
    names = {file: PurePosixPath(file).name for file in files}
    fitting = [file for file in files if _fits(names[file], format_)]
    about = [file for file in fitting if _known_format(names[file]) == "txt" and _tells_about(names[file])]
    chosen = [file for file in fitting if file not in about]
    if not chosen:
        found = [names[file] for file in files[:5]]
        hint = "; files that tell about others are no documents: to use one, name it alone in 'path'" if about else ""
        raise SourceError(f"{where}: no file of format {format_!r} in it; it holds {found}{hint}")
    formats = Counter(_known_format(names[file]) for file in chosen)
    if format_ == "auto" and "txt" in formats and len(formats) > 1:
        counts = ", ".join(f"{number} {kind}" for kind, number in formats.items())
        raise SourceError(
            f"{where}: the files are of several formats ({counts}), and text beside records may be notes; set 'format' "
            "to the one that is meant"
        )
    if about:
        left_out += [names[file] for file in about]
        log.info("no documents, left out: %s", ", ".join(names[file] for file in about))
    return chosen


def _tells_about(name: str) -> bool:
    return name.lower().split(".")[0] in _ABOUT


def _read_file(path: Path, format_: str, origin: str, units: TextUnits, left_out: list[str]) -> Iterator[Record]:
    if path.suffix.lower() == ".zip":
        yield from _read_zip(path, format_, origin, units, left_out)
        return
    format_ = cast(str, _known_format(path.name)) if format_ == "auto" else format_  # `_fits` chose the file
    if format_ == "parquet":
        yield from parquet(path, origin)
        return
    with path.open("rb") as stream:
        yield from _decode(stream, format_, origin, units)


def _decode(packed: BinaryIO, format_: str, origin: str, units: TextUnits) -> Iterator[Record]:
    """Records of an open file that is compressed as its name, `origin`, says."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(origin).suffixes]
    if unread := _NOT_READ & set(suffixes):
        raise SourceError(
            f"{origin}: files packed as {min(unread)} are not read; unpack it, or pack it as one of "
            f"{', '.join([*_COMPRESSED, '.zip'])}"
        )
    opener = _COMPRESSED.get(suffixes[-1] if suffixes else "")
    if opener is None:
        yield from decode(packed, format_, origin, units)
        return
    with opener(packed) as stream:
        yield from decode(stream, format_, origin, units)


def _read_zip(path: Path, format_: str, origin: str, units: TextUnits, left_out: list[str]) -> Iterator[Record]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
            chosen = _choose(names, format_, origin, left_out)
            several = units.several or len(chosen) > 1
            for name in chosen:
                with archive.open(name) as stream:
                    member_format = cast(str, _known_format(name)) if format_ == "auto" else format_
                    of_file = replace(units, several=several, file=f"{units.file}/{name}")
                    yield from _decode(cast(BinaryIO, stream), member_format, f"{origin}/{name}", of_file)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{origin}: damaged archive ({error}); get the file again") from error
