"""Tables that verify themselves: Parquet with checksums of its pages and of the whole file, CSV with one beside it."""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atlas.errors import DamagedFileError
from atlas.files import atomic_path, write_text
from atlas.sealed import AGAIN, KEY, UNSEALED, checksum, seal, verify

log = logging.getLogger(__name__)


@contextmanager
def parquet_writer(temporary: Path, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """Write row groups to the file `temporary`, which has its checksum when the body ends.

    Checksums of pages, which any reader of Parquet can verify, do not cover the footer with the names, types and places
    of the columns; the file's own does.
    """
    with pq.ParquetWriter(temporary, schema, write_page_checksum=True, **options) as writer:
        yield writer
        # In the file's own list alone: the schema is stored a second time, in base64, with its metadata.
        writer.add_key_value_metadata({KEY: UNSEALED})
    seal(temporary)


def write_parquet(target: Path | str, table: pa.Table | pd.DataFrame) -> None:
    """Write a table atomically; the same table gives the same bytes. The index of a frame is not kept."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(target) as temporary, parquet_writer(temporary, table.schema) as writer:
        writer.write_table(table)


def read_parquet(path: Path | str, columns: Sequence[str] | None = None, remedy: str = AGAIN) -> pd.DataFrame:
    """A table as a frame; raises DamagedFileError that names the file when a bit of it has changed."""
    with _readable(path, remedy):
        return pd.read_parquet(
            path, columns=None if columns is None else list(columns), page_checksum_verification=True
        )


def read_arrow(path: Path | str, remedy: str = AGAIN) -> pa.Table:
    """The same as an Arrow table, with the metadata of its schema."""
    with _readable(path, remedy):
        return pq.read_table(path, page_checksum_verification=True)


@contextmanager
def open_parquet(path: Path | str, remedy: str = AGAIN) -> Iterator[pq.ParquetFile]:
    """A file that is read in parts; what is wrong with it is a DamagedFileError, also later while it is read."""
    # pre_buffer: it keeps what was read of all row groups until the file is closed (pyarrow 26).
    options = {"page_checksum_verification": True, "pre_buffer": False}
    with _readable(path, remedy), pq.ParquetFile(path, **options) as file:
        yield file


@contextmanager
def _readable(path: Path | str, remedy: str) -> Iterator[None]:
    verify(path, remedy)
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{path}: truncated or altered ({error}); {remedy}") from error


def checksum_path(table: Path | str) -> Path:
    """Return where the checksum of a CSV table is: CSV has no place for one that other programs would pass over."""
    path = Path(table)
    return path.with_name(f".{path.name}.{KEY}")


def write_csv(target: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV atomically, its checksum beside it; the index is not kept."""
    with atomic_path(target) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
        write_text(checksum_path(target), f"{checksum(temporary.read_bytes())}\n")


def read_csv(path: Path | str, **options: Any) -> pd.DataFrame:
    """Read a table that `write_csv` wrote; raises DamagedFileError when it has changed since.

    A table without a checksum beside it, of an earlier version or copied from elsewhere, is named in the log.
    """
    content, beside = Path(path).read_bytes(), checksum_path(path)
    if not beside.is_file():
        log.warning("%s: has no checksum beside it (%s): it is not verified", path, beside.name)
    elif (said := beside.read_bytes().strip().decode(errors="replace")) != (found := checksum(content)):
        raise DamagedFileError(
            f"{path}: altered since it was written: its checksum is {found}, but {beside} says {said}; {AGAIN}"
        )
    return pd.read_csv(io.BytesIO(content), **options)
