"""SAEs that others trained, read from the files in which they publish them. docs/formats.md says what files mean."""

from atlas.published.base import Published, PublishedFormat
from atlas.published.read import FORMATS, read_published

__all__ = ["FORMATS", "Published", "PublishedFormat", "read_published"]
