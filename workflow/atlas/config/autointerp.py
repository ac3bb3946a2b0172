"""Settings of labels of latents, and of tests of the labels."""

from typing import Literal

from pydantic import Field, model_validator

from atlas.config.base import Section, Seeds
from atlas.config.faults import shown

# Explainers and scorers that ask nobody.
_WITHOUT_MODEL = ("lexical", "words", "embedding", "intruder_embedding")
# Scorers that need no label.
_INTRUDERS = ("intruder", "intruder_embedding")
Explainer = Literal["lexical", "max_activation", "delphi_default"]
Scorer = Literal[
    "words",
    "embedding",
    "detection",
    "fuzzing",
    "delphi_detection",
    "delphi_fuzzing",
    "intruder",
    "intruder_embedding",
]
Role = Literal["in_sample", "proxy", "oos"]


class LabelClient(Section):
    """Client that answers the prompts of explainers and scorers with a language model."""

    kind: Literal["transformers", "openai", "words"] = Field(
        description="'transformers': a model of section `models`, in the job's own process; 'openai': a server with "
        "OpenAI's chat completions (llama.cpp, vLLM, a hosted one); 'words': no language model, a fixed rule over the "
        "words of a prompt, for tests of the pipeline."
    )
    model: str | None = Field(
        default=None, description="'transformers': name in section `models`, a chat model; 'openai': the server's name."
    )
    base_url: str | None = Field(
        default=None, pattern=r"^https?://[^@\s]+$", description="Of 'openai', for example http://127.0.0.1:8080/v1."
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Of 'openai': name of the environment variable that holds the key; null: no key is sent.",
    )
    structured: bool = Field(
        default=False,
        description="Of 'openai': have the server hold answers to their form by a JSON schema (`response_format`), so "
        "that they always parse; llama.cpp and vLLM do.",
    )
    omit: tuple[Literal["temperature", "seed", "logprobs"], ...] = Field(
        default=(),
        description="Of 'openai': fields of a request that the server refuses, and that are left out. Without "
        "'temperature' replies are sampled, without 'logprobs' answers are 0 or 1.",
    )
    reasoning_tokens: int = Field(
        default=0,
        ge=0,
        description="Of 'openai': tokens that a model may spend on thought before each answer, added to its limit. The "
        "thought is cut off; a reply that ends inside it is no answer.",
    )
    concurrency: int = Field(default=4, ge=1, description="Of 'openai': requests at once.")
    timeout_s: float = Field(default=120.0, gt=0, description="Of 'openai': seconds to wait for an answer.")
    retries: int = Field(
        default=5, ge=0, description="Of 'openai': tries after the first, the pause doubles from 1 s to 60 s."
    )

    @model_validator(mode="after")
    def _keys_of_the_kind(self):
        if (self.kind in ("transformers", "openai")) != (self.model is not None):
            raise ValueError(
                f"kind {self.kind!r} with model {shown(self.model)}: 'words' has none, the others need one"
            )
        if (self.kind == "openai") != (self.base_url is not None):
            raise ValueError(
                f"kind {self.kind!r} with base_url {shown(self.base_url)}: 'openai' needs it, others have none"
            )
        if self.kind != "openai" and self.api_key_env is not None:
            raise ValueError(f"kind {self.kind!r} with api_key_env {self.api_key_env!r}: only 'openai' sends a key")
        if self.kind != "openai" and (self.omit or self.reasoning_tokens):
            raise ValueError(
                f"kind {self.kind!r} with omit {list(self.omit)} and reasoning_tokens {self.reasoning_tokens}: only "
                "'openai' has a server; 'transformers' has the model answer without thought"
            )
        if len(set(self.omit)) != len(self.omit):
            raise ValueError(f"omit {list(self.omit)} repeats")
        return self


class Autointerp(Section):
    """Examples, explainers, scorers. A label's score is an AUC; controls stand beside every one."""

    explainers: tuple[Explainer, ...] = Field(
        default=("lexical",), min_length=1, description="Who writes labels; the first one's decide a latent's outcome."
    )
    scorers: tuple[Scorer, ...] = Field(
        default=("words", "embedding"),
        min_length=1,
        description="Who tests labels: 'words' sees single words, 'embedding' topics. 'intruder' and "
        "'intruder_embedding' test latents without a label, and cannot be first.",
    )
    client: LabelClient | None = Field(default=None, description="Language model behind them; null: none is asked.")
    per_prompt: int = Field(default=5, ge=1, description="Examples that a scorer shows a language model at once.")
    roles: tuple[Role, ...] = Field(
        default=("in_sample", "proxy", "oos"), min_length=1, description="Evaluation corpora that give examples."
    )
    window_tokens: int = Field(default=32, ge=2, description="Tokens of an example, all of one document.")
    activating_share: float | None = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Windows of this share, the strongest, activate a latent; all others do not. null: every window "
        "in which it fires, however weakly.",
    )
    activating_floor: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Of these, windows below this share of the latent's strong activation (the median of its "
        "`top_examples` strongest windows) do not activate it: a rare meaning fills fewer windows.",
    )
    planted: int = Field(
        default=12,
        ge=0,
        description="Planted latents of each class, whose scores are the ceiling and the floor; 0: none. Explainers "
        "and scorers that ask a language model are not given them.",
    )
    train_examples: int = Field(default=40, ge=1, description="Examples that the explainer sees, at most.")
    top_examples: int = Field(default=20, ge=0, description="Of these, the strongest; the others span the quantiles.")
    test_examples: int = Field(default=50, ge=1, description="Activating examples that a label is tested on, at most.")
    random_negatives: int = Field(default=50, ge=1, description="Examples on which the latent is silent, at most.")
    hard_negatives: int = Field(
        default=50, ge=1, description="Such examples on which the nearest latents by decoder cosine fire, at most."
    )
    intruder_windows: int = Field(
        default=5, ge=3, le=9, description="Windows that an intruder scorer is shown at once; one does not belong."
    )
    neighbours: int = Field(default=10, ge=1, description="Nearest latents that give hard negatives.")
    quantiles: int = Field(default=10, ge=1, description="Strata of activation that examples are drawn from alike.")
    min_examples: int = Field(
        default=10, ge=2, description="Examples of each kind below which a latent is not scored, and counted as such."
    )
    swaps: int = Field(default=10, ge=1, description="Other latents' labels behind the control 'shuffled'.")
    seeds: Seeds = Field(default=(0, 1), description="Splits of the documents; the first is scored, all give labels.")
    sample: int | None = Field(default=None, ge=1, description="Latents that are labelled, at random; null: all.")

    @model_validator(mode="after")
    def _consistent(self):
        if self.top_examples > self.train_examples:
            raise ValueError(f"top_examples is {self.top_examples}: at most train_examples, {self.train_examples}")
        for key in ("explainers", "scorers", "roles"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key} {list(values)} repeat")
        if self.scorers[0] in _INTRUDERS:
            raise ValueError(
                f"scorers begin with {self.scorers[0]!r}: the first decides on labels, and this needs none"
            )
        asking = [name for name in (*self.explainers, *self.scorers) if name not in _WITHOUT_MODEL]
        if asking and self.client is None:
            raise ValueError(f"{', '.join(asking)} ask a language model, but client is null: configure one")
        return self

    @property
    def label_scorers(self) -> tuple[str, ...]:
        """Scorers that test labels."""
        return tuple(name for name in self.scorers if name not in _INTRUDERS)

    @property
    def intruder_scorers(self) -> tuple[str, ...]:
        """Scorers that test latents without a label."""
        return tuple(name for name in self.scorers if name in _INTRUDERS)

    @property
    def without_model(self) -> "Autointerp":
        """The same settings with those explainers and scorers alone that ask no language model."""
        kept = {
            key: tuple(name for name in getattr(self, key) if name in _WITHOUT_MODEL)
            for key in ("explainers", "scorers")
        }
        return self.model_copy(update=kept)

    @property
    def needs_delphi(self) -> bool:
        """Return whether Delphi's own classes are used, which live in an environment of their own."""
        return any(name.startswith("delphi_") for name in (*self.explainers, *self.scorers))
