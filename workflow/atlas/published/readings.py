"""Other ways in which the same files could be meant, for the audit to compare with the stated one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from math import sqrt

from jaxtyping import Float
from torch import Tensor

from atlas.hook_points import HookPoint
from atlas.training.row_scale import ROW_SCALES
from atlas.training.sae import Sae

# The values of k that releases have; one that is read as ReLU shows none.
_K = (8, 16, 32, 64, 128, 256)
Changes = Iterator[tuple[str, Sae]]


@dataclass(frozen=True)
class SaeReading:
    """An SAE, the hooks whose rows it reads and reconstructs, and whether a context's first row is left out.

    `name` says in words how it differs from the stated one. Rows are multiplied by `scale` before they are encoded, and
    the reconstruction is divided by it. `may_keep_more` says whether it may win although it keeps more latents a row
    than the stated one: more latents alone explain more.
    """

    name: str
    sae: Sae
    source: str
    target: str
    scale: float = 1.0
    without_first: bool = False
    may_keep_more: bool = True

    def latents(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows n_latents"]:
        """Latents of stored rows."""
        return self.sae.encode(rows * self.scale)

    def reconstruction(
        self, latents: Float[Tensor, "rows n_latents"], rows: Float[Tensor, "rows d_model"]
    ) -> Float[Tensor, "rows d_target"]:
        """Stored rows of the target from latents and from the rows that were encoded."""
        return self.sae.decode(latents, rows * self.scale) / self.scale


def other_readings(
    stated: SaeReading,
    rows: Mapping[str, Float[Tensor, "rows width"]],
    has_first: bool,
    alternatives: Mapping[str, Sae],
) -> Iterator[SaeReading]:
    """Yield readings that differ from the stated one in one thing. `alternatives` are what the format leaves open.

    `has_first` says that rows of first positions are counted. Those that need matrices of their own make them when
    they are asked for: a dictionary of 131,072 latents has to be in memory few times.
    """
    sae, mean_norm = stated.sae, rows[stated.source].float().norm(dim=1).mean().item()
    for name, scale in _scales(sae, mean_norm).items():
        yield replace(stated, name=name, scale=scale)
    changes = (
        _bias(sae),
        _row_scales(sae),
        _thresholds(sae, sqrt(sae.d_model) / mean_norm),
        _decoders(sae),
        alternatives.items(),
    )
    for name, changed in chain(*changes):
        yield replace(stated, name=name, sae=changed)
    for name, changed in _selections(sae).items():
        yield replace(stated, name=name, sae=changed, may_keep_more=False)
    yield from _hooks(stated, rows)
    if has_first:
        yield replace(stated, name="rows of first positions left out", without_first=True)


def _bias(sae: Sae) -> Changes:
    if sae.b_dec.shape == (sae.d_model,) and bool(sae.b_dec.any()):
        name = "b_dec not subtracted before encoding" if sae.centres else "b_dec subtracted before encoding"
        yield name, replace(sae, subtracts_b_dec=not sae.centres)


def _scales(sae: Sae, mean_norm: float) -> dict[str, float]:
    """Numbers by which rows may have been meant to be multiplied before encoding."""
    if sae.row_scale is not None or sae.W_skip is not None:
        return {}
    root = sqrt(sae.d_model)
    factors = {
        "√d_model": root,
        "1 / √d_model": 1 / root,
        "√d_model / mean norm": root / mean_norm,
        "mean norm / √d_model": mean_norm / root,
        "1 / mean norm": 1 / mean_norm,
        "mean norm": mean_norm,
    }
    return {f"rows times {name}": factor for name, factor in factors.items()}


def _row_scales(sae: Sae) -> Changes:
    for name in (None, *ROW_SCALES):
        if name != sae.row_scale and not sae.is_transcoder:
            yield f"each row normalised by {name or 'nothing'}", replace(sae, row_scale=name)


def _thresholds(sae: Sae, scale: float) -> Changes:
    thresholds = sae.latent_parameters.get("thresholds")
    if thresholds is None:
        return
    others = {
        "thresholds are logarithms": thresholds.exp(),
        "thresholds times √d_model / mean norm": thresholds * scale,
        "thresholds times mean norm / √d_model": thresholds / scale,
    }
    for name, values in others.items():
        yield name, replace(sae, latent_parameters={"thresholds": values})


def _selections(sae: Sae) -> dict[str, Sae]:
    """Other rules for which latents pass."""
    found: dict[str, Sae] = {}
    if sae.architecture in ("relu", "jumprelu", "batch_topk", "matryoshka_batch_topk"):
        plain = replace(sae, architecture="topk", threshold=None, latent_parameters={})
        found = {f"TopK of {k}": replace(plain, k=k) for k in _K if k < sae.n_latents}
    if sae.architecture == "norm_topk":
        found["TopK without decoder norms"] = replace(sae, architecture="topk", latent_parameters={})
    norms = sae.W_dec.norm(dim=1)
    if sae.architecture == "topk" and bool((norms / norms.mean() - 1).abs().max() > 0.01):
        by_norm = replace(sae, architecture="norm_topk", latent_parameters={"norms": norms})
        found["TopK by latent times decoder norm"] = by_norm
    return found


def _decoders(sae: Sae) -> Changes:
    """Other uses of the two matrices."""
    norms = sae.W_dec.norm(dim=1, keepdim=True)
    if bool((norms - 1).abs().max() > 0.01):
        yield "decoder rows brought to norm 1", replace(sae, W_dec=sae.W_dec / norms)
    if sae.W_dec.shape[0] == sae.W_dec.shape[1]:
        W_enc, W_dec = sae.W_enc.T.contiguous(), sae.W_dec.T.contiguous()
        yield "decoder transposed", replace(sae, W_dec=W_dec)
        yield "encoder transposed", replace(sae, W_enc=W_enc)
        yield "encoder and decoder transposed", replace(sae, W_enc=W_enc, W_dec=W_dec)


def _hooks(stated: SaeReading, rows: Mapping[str, Tensor]) -> Iterator[SaeReading]:
    """Rows of other stored hooks of the same width; a transcoder's two hooks are exchanged one at a time."""
    depth = {hook: HookPoint.parse(hook).depth for hook in rows}
    for hook in rows:
        if depth[hook] != depth[stated.source] and rows[hook].shape[1] == stated.sae.d_model:
            target = stated.target if stated.sae.is_transcoder else hook
            yield replace(stated, name=f"rows of {hook}", source=hook, target=target)
        if (
            stated.sae.is_transcoder
            and depth[hook] != depth[stated.target]
            and rows[hook].shape[1] == stated.sae.d_target
        ):
            yield replace(stated, name=f"target {hook}", target=hook)
