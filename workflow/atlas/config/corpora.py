"""Corpora: where text comes from, which records are kept, and how documents are cut."""

import re
from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from atlas.chat_template import CHAT_DATE
from atlas.config.base import Pattern, Section
from atlas.config.planted import SampleSource
from atlas.config.sources import Source


class Criterion(Section):
    """One test of a record: a pattern in a field, or the density of a vocabulary in it."""

    field: str = Field(description="Field of the record.")
    pattern: Pattern | None = Field(default=None, description="Regular expression, searched without regard to case.")
    vocabulary: tuple[str, ...] = Field(default=(), description="Words counted in the field.")
    min_per_1000_words: float = Field(default=0.0, ge=0, description="Density of vocabulary words that accepts.")

    @model_validator(mode="after")
    def _one_test(self):
        if (self.pattern is None) == (not self.vocabulary):
            raise ValueError("give either 'pattern' or 'vocabulary'")
        if self.vocabulary and self.min_per_1000_words == 0:
            raise ValueError("min_per_1000_words is 0, which accepts every record: must be above 0 with 'vocabulary'")
        return self


class Filter(Section):
    """Choose the records of a source that belong to the corpus."""

    any_of: tuple[Criterion, ...] = Field(min_length=1, description="A record that meets any criterion is accepted.")
    invert: bool = Field(default=False, description="Keep the records that meet none instead.")


class Wrapper(Section):
    """Text that stands around every document, as a prompt template puts it there."""

    before: str = Field(default="", description="Text before a document.")
    after: str = Field(default="", description="Text after it, before what separates it from the next.")

    @model_validator(mode="after")
    def _not_empty(self):
        if not self.before + self.after:
            raise ValueError("give 'before', 'after', or both; without a wrapper leave 'wrapper' out")
        return self


class Corpus(Section):
    """Text of one kind."""

    source: Source
    format: Literal["auto", "jsonl", "json", "parquet", "csv", "txt", "mediawiki"] = Field(
        default="auto",
        description="File format; 'auto' reads it from the suffix (also inside .zip, .gz, .bz2, .xz and .zst).",
    )
    text_unit: Literal["file", "blank_line", "heading"] | None = Field(
        default=None,
        description="What a document of a text file is: the 'file', each block between blank lines ('blank_line'), or "
        "each section under a 'heading' (# Title, = Title =). Required for a single text file; null: in a folder, the "
        "file. The split follows the larger unit: the file where there are several, else the section of a block.",
    )
    heading_level: int | None = Field(
        default=None,
        ge=1,
        le=6,
        description="Level of the headings of text files that begin a section, and of those above. null: each heading "
        "that is no deeper than all before it in its file.",
    )
    text_field: str = Field(default="text", description="Field with the text, or with the list of messages.")
    template: Literal["plain", "conversation", "chat_template"] = Field(
        default="plain",
        description="'plain' text; 'conversation' writes messages as 'role: text' paragraphs; "
        "'chat_template' uses the model's own template.",
    )
    chat_date: date = Field(
        default=CHAT_DATE,
        description="Day that a chat template takes for today, where it writes the date; it is on the run card.",
    )
    wrapper: Wrapper | None = Field(
        default=None,
        description="Text around every document, or around its window if it is cut to one. The document's own tokens, "
        "its id and its side of the split stay the same: without a wrapper it is the same text in another template.",
    )
    filter: Filter | None = Field(default=None, description="Which records are kept.")
    min_characters: int = Field(default=200, ge=1, description="Shorter documents are left out, and counted.")
    max_document_tokens: int | None = Field(
        default=None,
        ge=8,
        description="Of longer documents a window of this many tokens is used, at a place given by the document's "
        "number: a small token budget then spans many documents.",
    )
    eval_fraction: float = Field(
        default=0.1, ge=0, le=1, description="Share of documents, by hash, held out of training."
    )
    near_duplicates: Literal["count", "drop"] = Field(
        default="count",
        description="Held-out documents more than half of whose runs of 13 words are in one training document: 'drop' "
        "leaves out those of this corpus, 'count' keeps them. Their share is reported and on the run card either way.",
    )
    group_field: str | None = Field(
        default=None,
        description="Field that names what a record is part of; all parts go to one side of the split. Records of text "
        "files have the fields 'file' and 'heading'.",
    )
    group_pattern: Pattern = Field(
        default="(.*)", description="Regular expression whose first group is that name, matched from the field's start."
    )
    expected_documents: int | None = Field(
        default=None, description="Whole records in the source; required for a source that is known to end early."
    )
    ends_early: bool = Field(
        default=False,
        description="The source is known to be cut off: its whole records are used and the end is reported.",
    )

    @property
    def is_planted(self) -> bool:
        """Return whether it is rows drawn from a planted model, and no text."""
        return isinstance(self.source, SampleSource)

    @model_validator(mode="after")
    def _sample_has_no_text(self):
        if self.is_planted and (given := self.model_fields_set - {"source"}):
            raise ValueError(f"{', '.join(sorted(given))}: about text, which a planted_sample has not; leave it out")
        return self

    @model_validator(mode="after")
    def _pattern_has_a_group(self):
        if re.compile(self.group_pattern).groups < 1:
            raise ValueError(
                f"group_pattern is {self.group_pattern!r}: must have a group in parentheses, which is the name"
            )
        return self

    @model_validator(mode="after")
    def _one_template(self):
        if self.heading_level is not None and self.text_unit not in ("blank_line", "heading"):
            raise ValueError(f"heading_level needs text_unit 'heading' or 'blank_line', found {self.text_unit!r}")
        if self.wrapper is not None and self.template == "chat_template":
            raise ValueError("wrapper cannot stand around template 'chat_template', which has a wrapper of its own")
        return self
