"""Models, corpora and mixes."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from atlas.chat_template import CHAT_DATE
from atlas.config.base import Name, Pattern, Section
from atlas.config.planted import PlantedSource, SampleSource
from atlas.config.sources import ModelSource, Source
from atlas.hook_points import HookPoint

Objective = Literal["causal_lm", "masked_lm", "sequence_classification", "embedding", "none"]


class TokenBudget(Section):
    """How much text of each corpus a model sees, in contexts of which length."""

    context_length: int = Field(ge=8, description="Tokens of one context.")
    train_tokens: int = Field(ge=1, description="Token budget of each training corpus.")
    eval_tokens: int = Field(ge=1, description="Token budget of each evaluation corpus.")

    @model_validator(mode="after")
    def _whole_contexts(self):
        for key in ("train_tokens", "eval_tokens", "shard_tokens"):
            if getattr(self, key, 0) % self.context_length:
                raise ValueError(
                    f"{key} is {getattr(self, key)}: must be a multiple of context_length, {self.context_length}"
                )
        return self

    def tokens(self, split: str) -> int:
        """Token budget of a split."""
        return {"train": self.train_tokens, "eval": self.eval_tokens}[split]


class CorpusBudget(Section):
    """Token budgets of one corpus that differ from the model's."""

    train_tokens: int | None = Field(default=None, ge=1, description="Token budget when it is trained on.")
    eval_tokens: int | None = Field(default=None, ge=1, description="Token budget when it is evaluated on.")


class Harvest(TokenBudget):
    """How activations of one model are collected."""

    corpora: dict[Name, CorpusBudget] = Field(
        default={}, description="Budgets of single corpora, for those that have less text than the others."
    )
    batch_contexts: int = Field(default=8, ge=1, description="Contexts of one forward pass.")
    shard_tokens: int = Field(default=4_194_304, ge=1, description="Tokens of one activation file.")
    storage_dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Number format on disk; float16 is not offered, residual norms overflow it."
    )
    mode: Literal["store", "stream"] = Field(
        default="store",
        description="'store' keeps the activations of training text as files, which each SAE's job reads. 'stream' "
        "keeps none: one job for all SAEs that share corpora runs the model and trains them window by window. Needs "
        "window_shards; the SAEs are those of 'store' with that window, to the bit.",
    )
    window_shards: int | None = Field(
        default=None,
        ge=1,
        description="Shards of a window of each training corpus. Training passes a corpus once, window by window, and "
        "draws batches from one window at a time. null: from the whole corpus at any time.",
    )
    statistics_shards: int = Field(
        default=1,
        ge=1,
        description="With window_shards: the first shards of each training corpus, from which the median norm and the "
        "scale of rows are taken, since later ones are not there yet.",
    )
    window_memory_mb: int = Field(
        default=4000,
        ge=0,
        description="With mode 'stream': rows of windows up to this size are in host memory; larger windows lie in "
        "activation files below results/state until training has passed them.",
    )
    group_memory_mb: int = Field(
        default=16_000,
        ge=1,
        description="With mode 'stream': memory for the weights, gradients and moments of SAEs that one job trains; "
        "more SAEs are divided among several jobs, each of which runs the model.",
    )
    group_by: Literal["study", "model"] = Field(
        default="study",
        description="With mode 'stream': which SAEs of the same training corpora one job trains: those of one 'study', "
        "or of all studies with this 'model', which saves passes but trains all when one study is asked for.",
    )
    sae_gpu: bool = Field(
        default=False,
        description="With mode 'stream': a GPU of their own for the SAEs of a group, beside the model's: the job asks "
        "for two.",
    )
    keep_train: bool = Field(
        default=True,
        description="Keep the activation files that were trained on. false: each is deleted when all jobs of the call "
        "that read it are done. For an SAE that is asked for later it is made again, and then the other SAEs of the "
        "call are trained again too, to the same bits.",
    )

    @model_validator(mode="after")
    def _whole_contexts_of_corpora(self):
        for name in self.corpora:
            try:
                self.of(name)
            except ValidationError as error:
                raise ValueError(f"corpora.{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    def of(self, corpus: str) -> "Harvest":
        """The settings of one corpus: the model's, and the corpus' own budgets in their place."""
        own = self.corpora[corpus].model_dump(exclude_none=True) if corpus in self.corpora else {}
        return Harvest.model_validate(self.model_dump(exclude={"corpora"}) | own)

    @model_validator(mode="after")
    def _streams_in_windows(self):
        if self.mode == "stream" and self.window_shards is None:
            raise ValueError("mode is 'stream': give window_shards, the shards of training text that are held at once")
        if self.mode == "stream" and not self.keep_train:
            raise ValueError("keep_train is for mode 'store'; mode 'stream' keeps no training shards, leave it out")
        if self.window_shards is not None and self.statistics_shards > self.n_shards("train"):
            raise ValueError(
                f"statistics_shards is {self.statistics_shards}, but train_tokens of {self.train_tokens:,} make "
                f"{self.n_shards('train')} shards of {self.shard_tokens:,}; lower it, or shard_tokens"
            )
        return self

    def shard_sizes(self, split: str) -> list[int]:
        """Tokens of each shard of a split: all are full but the last."""
        total = self.tokens(split)
        return [min(self.shard_tokens, total - first) for first in range(0, total, self.shard_tokens)]

    def n_shards(self, split: str) -> int:
        """Number of shard files of a split, known before anything runs."""
        return -(-self.tokens(split) // self.shard_tokens)


def window_memory(config: Mapping[str, Any], model: str) -> dict[str, int]:
    """`window_memory_mb` of a model, if it is given in a configuration as it was read."""
    harvest = config["models"][model]["harvest"]
    return {key: harvest[key] for key in ("window_memory_mb",) if key in harvest}


class ModelSpec(Section):
    """What a model is: all that its preparation depends on."""

    source: ModelSource
    objective: Objective = Field(
        default="causal_lm",
        description="What the model computes, hence its loss; 'none' for a planted one, which has no output.",
    )
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="Number format of the forward pass.")
    n_layers: int = Field(ge=1, description="Number of blocks; checked against the model itself when it is prepared.")
    d_model: int = Field(ge=1, description="Width of the residual stream; checked likewise.")
    random_weights: int | None = Field(
        default=None,
        ge=0,
        description="Seed of weights that are drawn anew by the architecture's own initialisation; configuration and "
        "tokenizer stay the source's. What an SAE finds in such a model was not learnt. null: as in the source.",
    )

    @property
    def is_planted(self) -> bool:
        """Return whether activations are drawn, with features that are known, and there is no language model."""
        return isinstance(self.source, PlantedSource)

    @model_validator(mode="after")
    def _planted(self):
        if self.is_planted != (self.objective == "none"):
            raise ValueError(
                f"objective is {self.objective!r} and source.kind {self.source.kind!r}: a planted source has objective "
                "'none', every other source another one"
            )
        if self.is_planted and (self.n_layers != 1 or self.random_weights is not None):
            raise ValueError(
                f"n_layers is {self.n_layers}, random_weights {self.random_weights}: a planted source has one layer "
                "and no weights; expected 1 and null"
            )
        return self


class Model(ModelSpec):
    """A language model whose activations are studied."""

    hooks: tuple[str, ...] = Field(min_length=1, description="Hook points that one forward pass stores.")
    harvest: Harvest

    @model_validator(mode="after")
    def _hooks_exist(self):
        for text in self.hooks:
            layer = HookPoint.parse(text).layer
            if layer >= self.n_layers:
                raise ValueError(f"hook {text!r} names layer {layer}: the model has layers 0 to {self.n_layers - 1}")
        if self.is_planted and self.hooks != ("resid_post.0",):
            raise ValueError(f"hooks is {list(self.hooks)}: a planted source has one, 'resid_post.0'")
        if len(set(self.hooks)) != len(self.hooks):
            raise ValueError(f"hooks {list(self.hooks)} name one hook twice")
        return self


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
    """Which records of a source belong to the corpus."""

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


class Phase(Section):
    """Weights that hold until a share of training is done."""

    until: float = Field(gt=0, le=1, description="End of the phase as a share of all steps.")
    weights: dict[Name, float] = Field(min_length=1, description="Share of each corpus; sums to 1.")

    @model_validator(mode="after")
    def _shares(self):
        total = sum(self.weights.values())
        if any(weight < 0 for weight in self.weights.values()) or abs(total - 1) > 1e-6:
            raise ValueError(f"weights {self.weights} sum to {total:g}: shares must be ≥ 0 and sum to 1")
        return self


class Mix(Section):
    """What share of training rows comes from which corpus; constant, or a curriculum of phases."""

    phases: tuple[Phase, ...] = Field(min_length=1, description="One phase until 1.0, or several: a curriculum.")

    @model_validator(mode="after")
    def _phases_cover_training(self):
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError(f"phases end at {ends}: ends must increase and the last must be 1.0")
        return self

    @property
    def corpora(self) -> tuple[str, ...]:
        """Every corpus that is drawn from, in order of appearance."""
        return tuple(dict.fromkeys(name for phase in self.phases for name in phase.weights))
