"""Every format yields its records; what is damaged, cut off or something else is an error that names the file."""

import bz2
import gzip
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas.corpora import formats, readers
from atlas.corpora.readers import EndsEarlyError, hub_records, read_records
from atlas.corpora.text_units import TextUnits
from atlas.errors import SourceError

RECORDS = [{"text": "first\nline", "n": 1}, {"text": "zweite ü", "n": 2}, {"text": "third, with comma", "n": 3}]
PAGES = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
<page><title>A</title><ns>0</ns><revision><text>About '''A'''.</text></revision></page>
<page><title>B</title><ns>0</ns><redirect title="A"/><revision><text>#REDIRECT [[A]]</text></revision></page>
<page><title>Talk:A</title><ns>1</ns><revision><text>Chatter</text></revision></page>
<page><title>C</title><ns>0</ns><revision><text>About C.</text></revision></page>
</mediawiki>"""
JSON_LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
CSV = 'text,n\n"first\nline",1\nzweite ü,2\n"third, with comma",3\n'
NAMES = {
    "a.jsonl": JSON_LINES,
    "a.json": json.dumps(RECORDS),
    "a.csv": CSV,
    "a.tsv": CSV.replace(",1", "\t1").replace(",2", "\t2").replace(",3", "\t3").replace("text,", "text\t"),
}
PACKERS = {
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def as_text(records) -> list[dict]:
    return [{key: str(value) for key, value in record.items()} for record in records]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", ["", *PACKERS])
@pytest.mark.parametrize("in_zip", [False, True])
def test_text_formats_plain_and_packed(tmp_path, name, packed, in_zip):
    data = PACKERS.get(packed, bytes)(NAMES[name].encode())
    path = tmp_path / (name + packed)
    if in_zip:
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name + packed, data)
    else:
        path.write_bytes(data)
    assert as_text(read_records(path, "auto")) == as_text(RECORDS)


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    assert list(read_records(tmp_path / "a.parquet", "auto")) == RECORDS


def test_stated_format_needs_no_suffix(tmp_path):
    (tmp_path / "data.v1").write_text(JSON_LINES)
    assert list(read_records(tmp_path / "data.v1", "jsonl")) == RECORDS
    with pytest.raises(SourceError, match="the name tells no format; set 'format' to one of"):
        list(read_records(tmp_path / "data.v1", "auto"))


def test_articles_of_a_dump(tmp_path):
    path = tmp_path / "pages.xml-p10p30-short.bz2"
    path.write_bytes(bz2.compress(PAGES.encode()))
    assert list(read_records(path, "auto")) == [
        {"title": "A", "text": "About A."},
        {"title": "C", "text": "About C."},
    ]


def test_a_folder_of_text_files_is_read_by_file_and_a_single_file_needs_its_unit(tmp_path):
    (tmp_path / "one.txt").write_text("first\nstill first\n\n \nsecond\n")
    with pytest.raises(SourceError, match=r"one\.txt: a single text file; set text_unit to what a document of it is"):
        list(read_records(tmp_path / "one.txt", "auto"))
    found = list(read_records(tmp_path / "one.txt", "auto", units=TextUnits("blank_line")))
    assert [r["text"] for r in found] == ["first\nstill first", "second"]
    (whole,) = read_records(tmp_path / "one.txt", "auto", units=TextUnits("file"))
    assert whole["text"] == "first\nstill first\n\n \nsecond\n"
    (tmp_path / "two.txt").write_text("other\n\nfile\n")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    assert [r["text"] for r in read_records(tmp_path, "txt")] == [
        "first\nstill first\n\n \nsecond\n",
        "other\n\nfile\n",
    ]


@pytest.mark.parametrize("name", ["README.md", "readme.txt", "LICENSE.txt", "inner/README.md"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_about_the_folder_is_no_document(tmp_path, name, packed):
    files, left_out = {name: "About these texts.", "one.txt": "one", "two.txt": "two"}, []
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
    else:
        for file, text in files.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
    path = tmp_path / "a.zip" if packed else tmp_path
    assert [r["text"] for r in read_records(path, "auto", left_out=left_out)] == ["one", "two"]
    assert left_out == [name.split("/")[-1]]


def test_a_readme_beside_records_is_left_out_and_other_text_beside_them_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(JSON_LINES)
    (tmp_path / "README.md").write_text("About")
    assert list(read_records(tmp_path, "auto")) == RECORDS
    with pytest.raises(SourceError, match=r"no file of format 'txt' in it.*to use one, name it alone in 'path'"):
        list(read_records(tmp_path, "txt"))
    assert [r["text"] for r in read_records(tmp_path / "README.md", "auto", units=TextUnits("file"))] == ["About"]
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(SourceError, match=r"several formats \(1 jsonl, 1 txt\).*set 'format'"):
        list(read_records(tmp_path, "auto"))
    assert list(read_records(tmp_path, "jsonl")) == RECORDS


@pytest.mark.parametrize("name", ["a.jsonl.lz4", "a.jsonl.tar.gz", "a.tar", "a.txt.7z"])
def test_packing_that_is_not_read_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x04\x22\x4d\x18 packed")
    with pytest.raises(SourceError, match=r"are not read; unpack it, or pack it as one of \.bz2, \.gz, \.xz"):
        list(read_records(tmp_path / name, "jsonl"))


LARGE = {
    "a.jsonl": json.dumps({"text": "x" * 300}) + "\n",
    "a.csv": f"text\n{'x' * 300}\n",
    "a.txt": "x" * 300,
    "b.txt": "x " * 40 + "\n" + "x " * 130,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_record_beyond_the_limit_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setattr(formats, "MAX_RECORD", 256)
    (tmp_path / name).write_text(LARGE[name])
    unit = "file" if name == "a.txt" else "blank_line"
    with pytest.raises(SourceError, match=rf"{name}.*more than 256|{name}.*longer than 256.*divide it"):
        list(read_records(tmp_path / name, "auto", units=TextUnits(unit)))


def test_a_record_beyond_the_memory_is_named(tmp_path, monkeypatch):
    def fail(*_):
        yield {"text": "x"}
        raise pa.ArrowMemoryError("malloc of size 1610612736 failed")

    monkeypatch.setattr(readers, "parquet", fail)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match=r"a\.parquet: the record after record 1 needs more memory.*divide it"):
        list(read_records(tmp_path / "a.parquet", "auto"))


def test_large_rows_of_parquet_are_read_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_BATCH_BYTES", 4000)
    rows = [{"text": f"{n} " + "".join(map(str, range(n, n + 300)))} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    asked, real = [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, n: asked.append(n) or real(self, n))
    assert list(read_records(tmp_path / "a.parquet", "auto")) == rows
    assert asked[0] <= 5


SQUAD = {
    "version": "1.1",
    "data": [
        {"title": t, "paragraphs": [{"context": f"{t} long text " * 9, "qas": [{"id": "1", "question": "Why?"}]}]}
        for t in "AB"
    ],
}
OBJECTS = {
    "squad.json": (json.dumps(SQUAD), r"arrays of objects in it: \.data\[\] with title, paragraphs; .*jq -c '\.data\[\]"
                   r" \| \{title\} \+ \.paragraphs\[\]' squad\.json.*set group_field: title"),
    "rows.json": (json.dumps({"rows": RECORDS}, indent=1), r"jq -c '\.rows\[\]' rows\.json > records\.jsonl$"),
    "odd-keys.json": (json.dumps({"my rows": RECORDS}), r"jq -c '\.\"my rows\"\[\]' odd-keys"),
    "lines.json": (JSON_LINES, "found JSON lines; set format: jsonl"),
    "one.json": (json.dumps(RECORDS[0], indent=1), r"one object with the fields \['text', 'n'\]; if it is one record"),
    "text.json": ("Plain text", "found text that begins with 'P'"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_json_of_another_form_names_the_way_to_records(tmp_path, name):
    text, message = OBJECTS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        list(read_records(tmp_path / name, "auto"))
    assert "b'" not in str(caught.value)


def test_what_the_messages_advise_is_read(tmp_path):
    """Read the output of jq by the advice for SQuAD, and JSON lines under the name .json."""
    flat = [{"title": part["title"]} | paragraph for part in SQUAD["data"] for paragraph in part["paragraphs"]]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in flat))
    assert list(read_records(tmp_path / "records.jsonl", "auto")) == flat
    (tmp_path / "lines.json").write_text(JSON_LINES)
    assert list(read_records(tmp_path / "lines.json", "jsonl")) == RECORDS
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(RECORDS).encode())
    assert list(read_records(tmp_path / "marked.json", "auto")) == RECORDS


CUT = {
    "a.json": json.dumps(RECORDS)[:-20].encode(),
    "a.jsonl": JSON_LINES[:-20].encode(),
    "a.csv": CSV[:-8].encode(),
    "a.jsonl.gz": gzip.compress(JSON_LINES.encode())[:-9],
    "a.jsonl.xz": lzma.compress(JSON_LINES.encode())[:-20],
    "a.jsonl.zst": pa.compress(JSON_LINES.encode(), "zstd", asbytes=True)[:-9],
    "a.xml": PAGES[: PAGES.index("About C")].encode(),
}


@pytest.mark.parametrize("name", CUT)
def test_cut_off_source_yields_whole_records_and_then_says_so(tmp_path, name):
    (tmp_path / name).write_bytes(CUT[name])
    records, seen = read_records(tmp_path / name, "auto"), []
    with pytest.raises(EndsEarlyError, match=name):
        for record in records:
            seen.append(record)
    whole = [{"text": "About A."}] if name == "a.xml" else RECORDS
    texts = [record["text"] for record in seen]
    assert texts == [record["text"] for record in whole][: len(texts)]
    assert len(texts) >= min(2, len(whole)) or name.endswith((".gz", ".xz", ".zst"))


WRONG = {
    "a.json": (b'[{"text": "x"}, {"text": oops}]', "not JSON after record 1"),
    "b.json": (b'{"text": "x"}', "expected a JSON array"),
    "c.json": (b'[{"text": "x"}] trailing', "not JSON after record 1"),
    "a.jsonl": (b'{"text": "x"}\n{"text": oops}\n{"text": "y"}\n', "line 2 is not JSON"),
    "b.jsonl": (b'"x"\n', "line 1: expected an object with fields, found str"),
    "a.csv": (b"text,n\nx,1\ny,2,3\n", r"record 2 \(line 3\) has another number of fields"),
    "b.csv": (b"text,n\nx,1\ny\n", r"record 2 \(line 3\) has another number of fields"),
    "c.csv": ("text\nna\xefve\n".encode("latin-1"), "not UTF-8"),
    "a.xml": (b"<mediawiki><page></mediawiki>", "not XML"),
    "a.parquet": (b"PAR1 something else", "not a whole Parquet file"),
    "a.zip": (b"PK\3\4 something else", "damaged archive"),
    "a.csv.bz2": (b"something else", "cannot be read"),
    "a.csv.xz": (b"something else", "cannot be read"),
    "a.jsonl.zst": (b"something else", "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_or_other_content_is_no_early_end(tmp_path, name):
    data, message = WRONG[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=f"{name}.*{message}") as caught:
        list(read_records(tmp_path / name, "auto"))
    assert not isinstance(caught.value, EndsEarlyError)


def test_missing_file_and_empty_folder_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.csv is missing"):
        list(read_records(tmp_path / "none.csv", "auto"))
    (tmp_path / "notes.doc").write_text("x")
    with pytest.raises(SourceError, match=r"no file of format 'csv' in it; it holds \['notes.doc'\]"):
        list(read_records(tmp_path, "csv"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.doc", b"x")
    with pytest.raises(SourceError, match=r"a.zip: no file of format 'auto' in it; it holds \['notes.doc'\]"):
        list(read_records(tmp_path / "a.zip", "auto"))


def test_hub_dataset_is_streamed_at_its_commit(tmp_path, monkeypatch):
    """A local folder of data files stands in for the repository: the library reads both the same way."""
    import datasets

    (tmp_path / "train.jsonl").write_text(JSON_LINES)
    real, seen = datasets.load_dataset, {}

    def load(path, name, **options):
        seen.update(options, path=path, name=name)
        return real("json", data_files=str(tmp_path / "train.jsonl"), split=options["split"], streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(hub_records("org/set", "sub", "train", "c" * 40, "t")) == RECORDS
    assert seen == {
        "path": "org/set", "name": "sub", "split": "train", "revision": "c" * 40, "token": "t", "streaming": True,
    }  # fmt: skip


def test_hub_dataset_that_cannot_be_read_is_named():
    with pytest.raises(
        SourceError, match=r"hub dataset 'org/set' \(subset None, split 'train'.*check subset and split"
    ):
        list(hub_records("org/set", None, "train", "c" * 40, None))
