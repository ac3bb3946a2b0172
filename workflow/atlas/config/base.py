"""What every config section shares: unknown keys are errors, values are immutable."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

# Names become path components and Snakemake wildcards: no slash, nothing a shell would read.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """A config section. Field descriptions become the schema and the table in config/README.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
