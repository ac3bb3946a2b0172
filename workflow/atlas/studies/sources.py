"""List what a study takes from a network."""

from collections.abc import Sequence
from pathlib import Path

from atlas.files import write_text


def write_listing(sources: Sequence[str], listing: Path) -> None:
    """Write the paths of sources, one a line."""
    write_text(listing, "".join(f"{source}\n" for source in sources))
