"""The one grammar of hook points: ``<site>.<layer>``, for example ``resid_post.19``.

An SAE is named by the hook it reads and reconstructs, a transcoder by both of its hooks: ``mlp_in.10-to-mlp_out.10``.
Free of heavy imports, because the configuration is validated with it before anything runs.
"""

import re
from dataclasses import dataclass

SITES = ("resid_pre", "resid_post", "mlp_in", "mlp_out", "attn_out")
# Where a block's sites lie in the forward pass; a block's output is the input of the next one.
_ORDER = {"resid_pre": 0, "attn_out": 1, "mlp_in": 2, "mlp_out": 3, "resid_post": 4}
_JOINT = "-to-"
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
        """Return whether the hook carries the whole state, so that later blocks can be run from it alone."""
        return self.site in ("resid_pre", "resid_post")

    @property
    def depth(self) -> int:
        """Place in the forward pass; equal for two names of one tensor (``resid_post.3`` is ``resid_pre.4``)."""
        return self.layer * _ORDER["resid_post"] + _ORDER[self.site]


@dataclass(frozen=True)
class SaeHooks:
    """The hook whose rows are read (`source`) and the hook whose rows are reconstructed (`target`).

    They are one hook for an SAE; a transcoder's target comes later in the forward pass.
    """

    source: str
    target: str

    @classmethod
    def of(cls, hook: str, target_hook: str | None = None) -> "SaeHooks":
        """From the two keys of a study row; raises ValueError for a target that is not after the source."""
        source = HookPoint.parse(hook)
        if target_hook is None:
            return cls(hook, hook)
        target = HookPoint.parse(target_hook)
        if target.depth <= source.depth:
            place = "the same tensor as" if target.depth == source.depth else "computed before"
            raise ValueError(
                f"target hook {target_hook!r} is {place} {hook!r}: a transcoder predicts a later tensor from an "
                "earlier one; name a later target, or none for an SAE"
            )
        return cls(hook, target_hook)

    @classmethod
    def parse(cls, text: str) -> "SaeHooks":
        """Read ``resid_post.19`` or ``mlp_in.10-to-mlp_out.10``; raises ValueError that states the grammar."""
        hook, joint, target = text.partition(_JOINT)
        return cls.of(hook, target if joint else None)

    def __str__(self) -> str:
        return f"{self.source}{_JOINT}{self.target}" if self.is_transcoder else self.source

    @property
    def is_transcoder(self) -> bool:
        """Return whether what is reconstructed is not what is read."""
        return self.source != self.target

    @property
    def names(self) -> tuple[str, ...]:
        """The hooks, each once."""
        return tuple(dict.fromkeys((self.source, self.target)))

    @property
    def target_hook(self) -> str | None:
        """The target of a transcoder, None for an SAE: how configuration, tables and run cards say it."""
        return self.target if self.is_transcoder else None
