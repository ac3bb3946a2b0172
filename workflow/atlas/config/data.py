"""Models, and how much text of each corpus they see."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from atlas.config.base import Name, Section
from atlas.config.planted import PlantedSource
from atlas.config.sources import ModelSource
from atlas.hook_points import HookPoint

Objective = Literal["causal_lm", "masked_lm", "sequence_classification", "embedding", "none"]


class TokenBudget(Section):
    """Tokens of each corpus that a model sees, and the length of its contexts."""

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
    """Settings of collecting the activations of one model."""

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
    """Definition of a model: all that its preparation depends on."""

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
