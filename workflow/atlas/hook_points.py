"""The one grammar of hook points: ``<site>.<layer>``, for example ``resid_post.19``.

Free of heavy imports, because the configuration is validated with it before anything runs.
"""

import re
from dataclasses import dataclass

SITES = ("resid_pre", "resid_post", "mlp_in", "mlp_out", "attn_out")
_GRAMMAR = re.compile(rf"(?P<site>{'|'.join(SITES)})\.(?P<layer>\d+)")


@dataclass(frozen=True, order=True)
class HookPoint:
    """A place in a transformer: `site` of block `layer`, counted from 0."""

    layer: int
    site: str

    @classmethod
    def parse(cls, text: str) -> "HookPoint":
        """Read ``resid_post.19``; raises ValueError that states the grammar."""
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(f"hook point {text!r} is not '<site>.<layer>' with a site of {', '.join(SITES)}")
        return cls(layer=int(match["layer"]), site=match["site"])

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"

    @property
    def is_residual(self) -> bool:
        """Whether the hook carries the whole state, so that later blocks can be run from it alone."""
        return self.site in ("resid_pre", "resid_post")
