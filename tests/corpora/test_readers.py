"""Every format yields its records; what is damaged, cut off or something else is an error that names the file."""

import bz2
import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas.corpora.readers import EndsEarlyError, hub_records, read_records
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


def as_text(records) -> list[dict]:
    return [{key: str(value) for key, value in record.items()} for record in records]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", ["", ".bz2", ".gz", ".zip"])
def test_text_formats_plain_and_packed(tmp_path, name, packed):
    data = NAMES[name].encode()
    path = tmp_path / (name + packed)
    if packed == ".zip":
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, data)
    else:
        path.write_bytes({"": bytes, ".bz2": bz2.compress, ".gz": gzip.compress}[packed](data))
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


def test_text_file_is_split_at_blank_lines_and_a_folder_by_file(tmp_path):
    (tmp_path / "one.txt").write_text("first\nstill first\n\n \nsecond\n")
    assert [r["text"] for r in read_records(tmp_path / "one.txt", "auto")] == ["first\nstill first", "second"]
    (tmp_path / "two.txt").write_text("other\n\nfile\n")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    assert [r["text"] for r in read_records(tmp_path, "txt")] == [
        "first\nstill first\n\n \nsecond\n",
        "other\n\nfile\n",
    ]


CUT = {
    "a.json": json.dumps(RECORDS)[:-20].encode(),
    "a.jsonl": JSON_LINES[:-20].encode(),
    "a.csv": CSV[:-8].encode(),
    "a.jsonl.gz": gzip.compress(JSON_LINES.encode())[:-9],
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
    assert len(texts) >= min(2, len(whole)) or name.endswith(".gz")


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
    with pytest.raises(SourceError, match=r"no file of format 'csv' in the folder; found \['notes.doc'\]"):
        list(read_records(tmp_path, "csv"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.doc", b"x")
    with pytest.raises(SourceError, match=r"the archive has no file of format 'auto'; it holds \['notes.doc'\]"):
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
