"""Text files: what a document is, and that parts of one whole stay on one side of the split."""

import io
import json

import pandas as pd
import pytest
from pydantic import ValidationError

from atlas.config.corpora import Corpus
from atlas.corpora.documents import build_documents
from atlas.corpora.ordered import split_of
from atlas.corpora.text_units import TextUnits, heading, text_records
from atlas.errors import SourceError

ARTICLES = """Preface of the file.

# First

Opening of the first.
second line

## Part

Inside a part.

```
# no heading, but code
```

# Second
Opening of the second.

### Deep

Deep inside.
"""


def parts(text: str, **units) -> list[tuple[str, str, str]]:
    found = text_records(io.StringIO(text), "a.md", TextUnits(file="a.md", **units), 10_000)
    return [(record["text"], record["heading"], record.larger_unit) for record in found]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("# Title\n", (1, "Title")),
        ("### Title of it ###\n", (3, "Title of it")),
        (" = Title = \n", (1, "Title")),
        ("==Title==\n", (2, "Title")),
        (" = = = Deep part = = = \n", (3, "Deep part")),
        ("#hashtag\n", None),
        ("a = b\n", None),
        ("== uneven =\n", None),
        ("=====\n", None),
        ("    # code\n", None),
        ("\n", None),
    ],
)
def test_headings_of_markdown_and_wikitext(line, found):
    assert heading(line) == found


def test_blocks_belong_to_the_section_of_the_highest_heading():
    assert parts(ARTICLES, unit="blank_line") == [
        ("Preface of the file.", "", ""),
        ("# First", "First", "a.md#1"),
        ("Opening of the first.\nsecond line", "First", "a.md#1"),
        ("## Part", "First", "a.md#1"),
        ("Inside a part.", "First", "a.md#1"),
        ("```\n# no heading, but code\n```", "First", "a.md#1"),
        ("# Second\nOpening of the second.", "Second", "a.md#2"),
        ("### Deep", "Second", "a.md#2"),
        ("Deep inside.", "Second", "a.md#2"),
    ]


def test_sections_are_documents_with_all_that_is_under_them():
    found = parts(ARTICLES, unit="heading")
    assert [title for _, title, _ in found] == ["", "First", "Second"]
    assert found[1][0].startswith("# First\n") and found[1][0].endswith("```")
    assert {larger for *_, larger in found} == {""}
    assert [title for _, title, _ in parts(ARTICLES, unit="heading", heading_level=2)] == [
        "",
        "First",
        "Part",
        "Second",
    ]
    assert {larger for *_, larger in parts(ARTICLES, unit="heading", several=True)} == {"a.md"}
    assert {larger for *_, larger in parts(ARTICLES, unit="blank_line", several=True)} == {"a.md"}


def test_a_file_without_headings_is_not_divided_at_them_in_silence():
    with pytest.raises(SourceError, match=r"a\.md: no heading .*set heading_level, or text_unit to 'file'"):
        parts("text\n\ntext\n", unit="heading")
    with pytest.raises(SourceError, match="no heading of level 1 or above"):
        parts("## Part\ntext\n", unit="heading", heading_level=1)
    assert [larger for *_, larger in parts("a\n\nb\n", unit="blank_line")] == ["", ""]


@pytest.mark.parametrize("unit", ["blank_line", "heading"])
@pytest.mark.parametrize("n_files", [1, 30])
def test_no_section_is_on_both_sides_of_the_split(tmp_path, unit, n_files):
    """Articles of several sections: all of one article are training text, or all are held out."""
    articles = [
        f"# Article {n}\n\nopening of {n}\n\n" + "".join(f"## Part {p}\n\nword{n} part {p}\n\n" for p in range(4))
        for n in range(60)
    ]
    (tmp_path / "texts").mkdir()
    for file in range(n_files):
        (tmp_path / f"texts/{file}.md").write_text("".join(articles[file::n_files]))
    path = tmp_path / "texts" if n_files > 1 else tmp_path / "texts/0.md"
    corpus = Corpus(
        source={"kind": "path", "path": str(path)}, text_unit=unit, heading_level=1, min_characters=1, eval_fraction=0.3
    )
    build_documents("c", corpus, None, tmp_path / "c", tmp_path / "lock.yaml")
    table = pd.read_parquet(tmp_path / "c/documents.parquet")
    of_article = table.text.str.extractall(r"(?:word|opening of |Article )(\d+)").reset_index(level=1, drop=True)[0]
    sides = of_article.to_frame("article").join(table.split).groupby("article").split.nunique()
    assert len(sides) == 60
    assert (sides == 1).all()
    assert set(table.split) == {"train", "eval"}
    if n_files > 1 and unit == "heading":
        article = int(of_article.iloc[0])
        side = split_of(f"{article % n_files}.md", 0.3)  # by the name in the source, wherever that lies
        assert table.split.iloc[0] == side


def test_keys_of_text_files_are_checked():
    with pytest.raises(ValidationError, match="heading_level needs text_unit"):
        Corpus(source={"kind": "path", "path": "x"}, heading_level=2)


def test_a_group_field_takes_the_place_of_the_larger_unit(tmp_path):
    (tmp_path / "a.md").write_text("# A\n\none\n\n# B\n\ntwo\n")
    corpus = Corpus(
        source={"kind": "path", "path": str(tmp_path / "a.md")},
        text_unit="blank_line",
        group_field="heading",
        min_characters=1,
        eval_fraction=0.5,
    )
    build_documents("c", corpus, None, tmp_path / "c", tmp_path / "lock.yaml")
    table = pd.read_parquet(tmp_path / "c/documents.parquet").set_index("text").split
    for title, text in (("A", "one"), ("B", "two")):
        assert table[text] == table[f"# {title}"] == split_of(title, 0.5)


def test_files_and_messages_that_are_left_out_are_counted(tmp_path):
    calls = [{"id": "1", "function": {"name": "look_up"}}]
    chat = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny.", "tool_calls": calls},
        {"role": "user", "content": "  "},
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text(json.dumps({"text": chat}) + "\n" + json.dumps({"text": chat[:1]}) + "\n")
    (tmp_path / "data/README.md").write_text("# About")
    source = {"kind": "path", "path": str(tmp_path / "data")}
    corpus = Corpus(source=source, template="conversation", min_characters=1, eval_fraction=0.0)
    build_documents("c", corpus, None, tmp_path / "c", tmp_path / "lock.yaml")
    summary = json.loads((tmp_path / "c/corpus.json").read_text())
    assert summary["messages_left_out"] == {"empty": 2, "tool_calls": 2}
    assert summary["files_left_out"] == ["README.md"]
    assert summary["n_records"] == 2


def test_a_document_beyond_the_limit_is_named(tmp_path, monkeypatch):
    from atlas.corpora import documents

    monkeypatch.setattr(documents, "MAX_RECORD", 100)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "short"}, {"text": "x" * 101}]))
    corpus = Corpus(source={"kind": "path", "path": str(tmp_path / "a.json")}, min_characters=1)
    with pytest.raises(SourceError, match=r"record 2 has 101 characters: at most 100 are taken as one.*divide it"):
        build_documents("c", corpus, None, tmp_path / "c", tmp_path / "lock.yaml")
