"""Pages from templates: what comes from data is escaped, and nothing is fetched or run from within a page."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atlas.site.text import visible

FOLDER = Path(__file__).parent
ASSETS = ("atlas.css", "atlas.js", "latents.js")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


def write_page(target: Path, template: str, root: str, **values: Any) -> None:
    """Render a page; `root` is the way from its folder to the site's."""
    target.write_bytes(render(template, root, **values))


def render(template: str, root: str, **values: Any) -> bytes:
    """A page. Indentation of the templates is left out: a page of a latent is small because there are so many."""
    html = _environment().get_template(template).render(root=root, **values)
    return without_indentation(html).encode("utf-8", errors="backslashreplace")


def without_indentation(text: str) -> str:
    """A text whose lines begin at its margin, without empty lines."""
    return re.sub(r"\n\s*", "\n", text)


def write_data(target: Path, name: str, value: Any) -> None:
    """Write JSON as a script that defines `name`: a page opened from a file may load a script, but no JSON.

    ASCII only: no character of a corpus stands in a script, only its number.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    target.write_text(f"var {name}={text};\n", encoding="ascii")


def copy_assets(folder: Path) -> None:
    """Style sheet and scripts, which all pages share."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        shutil.copyfile(FOLDER / "assets" / name, folder / name)
