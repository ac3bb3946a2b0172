"""SAEs that somebody else trained: where their files are, what the files mean, and where they belong."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from atlas.config.base import Name, Section
from atlas.config.mixes import Mix, Phase
from atlas.config.sources import HubSource, PackageSource, PathSource
from atlas.sae_ids import STATED

PublishedFormat = Literal[
    "saelens",
    "gemma_scope",
    "gemma_scope_transcoder",
    "sparsify",
    "dictionary_learning",
    "llamascopium",
    "llama_scope",
    "nemotron_lens",
    "openai",
    "circuit_tracer",
    "hypothesaes",
    "saev",
]


class PublishedSae(Section):
    """A dictionary that was trained elsewhere; study rows name it with `sae`."""

    source: Annotated[PackageSource | HubSource | PathSource, Field(discriminator="kind")]
    folder: str = Field(
        default="",
        description="Folder or file inside the source, for example 'layer_20/width_16k/average_l0_71'. Of a folder the "
        "files that the format needs are taken, and no others.",
    )
    format: PublishedFormat = Field(description="Format of the files; docs/formats.md has each.")
    model: Name = Field(description="Model whose rows it reads; one of `models`.")
    hook: str = Field(description="Hook point whose rows it reads. Files that state another one are refused.")
    target_hook: str | None = Field(
        default=None, description="Hook point whose rows a transcoder reconstructs; null: an SAE."
    )
    n_latents: int = Field(
        ge=2, description="Size of the dictionary: jobs ask for memory by it, and the files must have it."
    )
    states: dict[str, Any] = Field(
        default={},
        description="What the format needs and the files do not say, for example {k: 32}. docs/formats.md lists the "
        "keys of each format; a key that the files contradict is refused.",
    )
    accept_reading: bool = Field(
        default=False,
        description="Judge it although another reading of the files explains more of the rows; the run card says so.",
    )

    @model_validator(mode="after")
    def _inside_the_source(self):
        path = PurePosixPath(self.folder)
        if path.is_absolute() or ".." in path.parts or self.folder != ("" if path == PurePosixPath() else str(path)):
            raise ValueError(f"folder is {self.folder!r}: must be a relative path without '.', '..' or a last '/'")
        return self

    @model_validator(mode="after")
    def _needs_no_more(self):
        own = {"hook", "target_hook", "n_latents", "format", "model"} & set(self.states)
        if own:
            raise ValueError(f"states has {', '.join(sorted(own))}: give it beside `states`, as a key of its own")
        return self


def stated_mix(corpora: tuple[str, ...]) -> tuple[str, Mix]:
    """Name and shares of the text that the user calls in-sample.

    Its training rows say what is usual at the hook: the mean, the median norm, and which rows are massive.
    """
    share = 1 / len(corpora)
    return STATED + ".".join(corpora), Mix(phases=(Phase(until=1.0, weights=dict.fromkeys(corpora, share)),))
