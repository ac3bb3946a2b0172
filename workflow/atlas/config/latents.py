"""Settings of measuring latents: the encoder that compares their contexts, and how much of them is read."""

from typing import Annotated, Literal

from pydantic import Field

from atlas.config.base import Section
from atlas.config.data import ModelSpec
from atlas.config.sources import PackageSource, PathSource


class Embedder(ModelSpec):
    """A sentence-transformers model (mean pooling, unit length); its folder holds modules.json and 1_Pooling."""

    source: Annotated[PackageSource | PathSource, Field(discriminator="kind")]
    objective: Literal["embedding"] = Field(default="embedding", description="What the model computes.")
    dtype: Literal["bfloat16", "float32"] = Field(default="float32", description="Number format of the forward pass.")


class Latents(Section):
    """Settings of everything that is said of single latents."""

    embedder: Embedder | None = Field(
        default=None, description="Sentence encoder behind coherence; null: coherence is not computed."
    )
    top_contexts: int = Field(default=10, ge=2, description="Contexts behind coherence, one per document.")
    window_tokens: int = Field(default=16, ge=1, description="Tokens of a context on either side of the firing.")
    min_tokens: int = Field(default=4096, ge=1, description="Counted tokens that a corpus needs; fewer are refused.")
