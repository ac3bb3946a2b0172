"""Base of every config section: unknown keys are errors, values are immutable."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

# Names become path components and Snakemake wildcards: no slash, nothing a shell would read.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {list(seeds)} repeat: name each seed once")
    return seeds


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


# Seeds become path components, and numpy takes none beyond 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]
Pattern = Annotated[str, AfterValidator(_compiles)]


class Section(BaseModel):
    """A config section. Field descriptions become the schema and the table in config/README.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
