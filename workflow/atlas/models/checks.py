"""The single checks of a model's audit.

Each takes a `AuditedModel` and a hook and returns a `Check`: the number found, the limit it is held to and why.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.errors import AtlasError
from atlas.hook_points import HookPoint
from atlas.models.adapters import ModuleTensor, get_blocks
from atlas.models.forward import capture, final_hidden, observed, run_from, run_with
from atlas.models.load import LoadedModel
from atlas.models.objectives import (
    TOKEN_OBJECTIVES,
    divergence,
    loss_mask,
    own_token_loss,
    per_token_loss,
    unreached,
)

# Enough contexts to compare bit for bit with what the library exposes, few enough that all layers fit in memory.
_COMPARED_CONTEXTS = 2
# Setting a live hook to zero moves the loss of a token by .05 to 10 nats; a dead one by exactly 0.
_LEAST_EFFECT = {"causal_lm": 0.01}
_LEAST_DIVERGENCE = 1e-3


@dataclass(frozen=True)
class Check:
    """One result. `passed` is None when the check could not be made; `detail` then says why."""

    name: str
    hook: str | None
    passed: bool | None
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class AuditedModel:
    """Subject of an audit: a model, real text, the positions that count and the number format of the store."""

    loaded: LoadedModel
    contexts: Int[Tensor, "contexts position"]
    counted: Bool[Tensor, "contexts position"]
    storage_dtype: torch.dtype

    @cached_property
    def clean(self) -> Float[Tensor, "contexts position d_model"]:
        """Final hidden state of the unchanged model."""
        return final_hidden(self.loaded, self.contexts)

    @cached_property
    def clean_loss(self) -> Float[Tensor, "contexts position"]:
        """Loss per token of the unchanged model, nats; causal models only."""
        return per_token_loss(self.loaded, self.contexts, self.clean)

    @cached_property
    def scored(self) -> Bool[Tensor, "contexts position"]:
        """Positions with a loss that counts."""
        return self.counted & loss_mask(self.loaded, self.contexts)

    @property
    def rounding_limit(self) -> float:
        """Largest `effect` that rounding to the store's number format may have; see `check_run_from`."""
        eps = torch.finfo(self.storage_dtype).eps
        if self.storage_dtype in (torch.float32, self.loaded.dtype):
            return 0.0
        if self.loaded.objective == "causal_lm":
            return eps * max(1.0, self.clean_loss[self.scored].mean().item())
        return eps**2

    def effect(self, hidden: Float[Tensor, "contexts position d_model"]) -> float:
        """Return how much the output changed: mean |Δ loss| per counted token in nats, or mean divergence per
        context.
        """
        if self.loaded.objective == "causal_lm":
            change = per_token_loss(self.loaded, self.contexts, hidden) - self.clean_loss
            return change.abs()[self.scored].mean().item()
        return divergence(self.loaded, self.clean, hidden).mean().item()


def check_clean_output(subject: AuditedModel) -> Check:
    """The model itself must produce finite outputs on this text."""
    bad = int((~subject.clean.isfinite()).sum())
    detail = "non-finite values in the final hidden state of the unchanged model"
    return Check("clean_output_finite", None, bad == 0, float(bad), 0.0, detail)


def check_clean_loss(subject: AuditedModel) -> Check:
    """A model that has learnt to predict tokens does it better than a uniform guess, whose loss is ln(vocabulary).

    Finds weights or a tokenizer that are not the model's. A masked language model is asked for the tokens that it
    reads, which is easier than its training task.
    """
    name, loaded = "clean_loss_below_uniform", subject.loaded
    limit = math.log(loaded.identity["vocabulary_size"])
    if loaded.objective not in TOKEN_OBJECTIVES:
        return Check(name, None, None, None, None, f"objective {loaded.objective} predicts no tokens")
    if loaded.objective == "causal_lm":
        value = subject.clean_loss[subject.scored].mean().item()
    else:
        value = own_token_loss(loaded, subject.contexts, subject.clean)[subject.counted].mean().item()
    if loaded.identity.get("random_weights") is not None:
        return Check(name, None, None, value, limit, "weights are random: nothing was learnt")
    detail = "mean loss of the unchanged model in nats; must be below ln(vocabulary): are weights and tokenizer right?"
    return Check(name, None, value < limit, value, limit, detail)


def check_finite(hook: str, value: Tensor) -> Check:
    """No NaN and no infinity at the hook."""
    bad = int((~value.isfinite()).sum())
    return Check("finite", hook, bad == 0, float(bad), 0.0, f"non-finite of {value.numel()} values")


def check_storage_range(hook: str, value: Tensor, storage_dtype: torch.dtype) -> Check:
    """The largest magnitude must be representable in the number format of the store."""
    largest, limit = value.abs().max().item(), torch.finfo(storage_dtype).max
    return Check(
        "storage_range",
        hook,
        largest <= limit,
        _finite(largest),
        limit,
        f"largest magnitude, stored as {storage_dtype}",
    )


def check_against_library(subject: AuditedModel, hook: str) -> Check:
    """The captured tensor must equal, bit for bit, the one that the library itself reports for this place.

    `hidden_states[i]` is the input of block i; its last entry has the final norm applied, so the last block is
    compared with what goes into that norm. This is the check that finds a hook on the wrong layer.
    """
    name = "equals_library"
    if not HookPoint.parse(hook).is_residual:
        return Check(name, hook, None, None, None, "not exposed by the library")
    contexts = subject.contexts[:_COMPARED_CONTEXTS]
    expected, source = _library_state(subject.loaded, contexts, hook)
    found = capture(subject.loaded, contexts, [hook])[hook]
    gap = (found.float() - expected.float()).abs().max().item()
    return Check(name, hook, torch.equal(found, expected), _finite(gap), 0.0, f"largest |difference| from {source}")


def check_block_sum(subject: AuditedModel, hook: str) -> Check:
    """A block's input plus what its attention and MLP add must be its output.

    Holds where the residual stream is a plain sum, which is wherever the model has a final norm. Each of two
    additions rounds by at most half an epsilon; the limit is twice that. Finds an MLP output taken before its norm.
    """
    name, point, loaded = "sums_to_block_output", HookPoint.parse(hook), subject.loaded
    if point.site not in ("mlp_out", "attn_out"):
        return Check(name, hook, None, None, None, "only for mlp_out and attn_out")
    if loaded.adapter.final_norm is None:
        return Check(name, hook, None, None, None, "blocks of this architecture norm the sum, it cannot be read back")
    sites = loaded.adapter.sites(get_blocks(loaded.model, loaded.adapter)[point.layer])
    added = [f"{site}.{point.layer}" for site in ("attn_out", "mlp_out") if site in sites]
    before, after = f"resid_pre.{point.layer}", f"resid_post.{point.layer}"
    found = capture(loaded, subject.contexts[:_COMPARED_CONTEXTS], [before, *added, after])
    found = {key: value.float() for key, value in found.items()}
    gap = (found[before] + sum(found[key] for key in added) - found[after]).norm(dim=-1)
    scale = torch.stack([value.norm(dim=-1) for value in found.values()]).amax(dim=0)
    value, limit = (gap / scale).max().item(), 2 * torch.finfo(loaded.dtype).eps
    detail = f"largest relative gap between {before} + {' + '.join(added)} and {after}"
    return Check(name, hook, value <= limit, _finite(value), limit, detail)


def check_splice(subject: AuditedModel, hook: str, captured: Tensor) -> Check:
    """Putting the captured tensor back where it came from must change no bit of the output."""
    hidden = run_with(subject.loaded, subject.contexts, hook, lambda _: captured)
    gap = (hidden.float() - subject.clean.float()).abs().max().item()
    detail = "largest |difference| of the final hidden state, hence of the logits, after splicing the tensor back"
    return Check("splice_is_exact", hook, torch.equal(hidden, subject.clean), _finite(gap), 0.0, detail)


def check_zero_ablation(subject: AuditedModel, hook: str) -> Check:
    """Setting the tensor to zero at the counted positions must change the output, else the hook is not on its path."""
    if reason := unreached(subject.loaded, hook, subject.counted):
        return Check("zero_ablation_matters", hook, None, None, None, reason)
    counted = subject.counted.unsqueeze(-1)
    limit = _LEAST_EFFECT.get(subject.loaded.objective, _LEAST_DIVERGENCE)
    hidden = run_with(subject.loaded, subject.contexts, hook, lambda value: value.masked_fill(counted, 0))
    return _effect_check(
        "zero_ablation_matters", subject, hook, hidden, least=limit, detail="must be more than the limit"
    )


def check_run_from(subject: AuditedModel, hook: str, captured: Tensor) -> Check:
    """Running on from the activation as it is stored must reproduce the clean output.

    Exactly, when the store holds every value of the model's number format. Otherwise rounding moves each element by
    at most half an epsilon of the store, and the loss by the same order relative to itself: the limit is one epsilon
    of the mean loss (measured: a tenth of that). A divergence is least at the clean output, so it grows with the
    square of the change: its limit is epsilon squared (measured: a hundredth). Wrong tensors are far above both.
    """
    limit = subject.rounding_limit
    hidden = run_from(subject.loaded, subject.contexts, hook, captured.to(subject.storage_dtype))
    detail = f"stored as {subject.storage_dtype}"
    return _effect_check("run_from_stored", subject, hook, hidden, most=limit, detail=detail)


def check_row_consistency(subject: AuditedModel, hook: str, captured: Tensor) -> Check:
    """A context must give the same activations alone as in a batch, up to the rounding of other kernels.

    Rounding errors of the blocks add like a random walk: the limit is 4 epsilons times √(blocks + 1), on the median
    token, because single tokens with large internal cancellation may differ more.
    """
    alone = capture(subject.loaded, subject.contexts[:1], [hook])[hook].float()
    batch = captured[:1].float()
    gaps = (alone - batch).norm(dim=-1) / batch.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    value = gaps.median().item()
    depth = HookPoint.parse(hook).layer + 1
    limit = 4 * torch.finfo(subject.loaded.dtype).eps * (depth + 1) ** 0.5
    detail = f"median relative difference of a token, alone or in a batch (largest {gaps.max().item():.3g})"
    return Check("alone_as_in_batch", hook, value <= limit, _finite(value), limit, detail)


def _effect_check(
    name: str,
    subject: AuditedModel,
    hook: str,
    hidden: Tensor,
    detail: str,
    least: float | None = None,
    most: float | None = None,
) -> Check:
    unit = "mean |Δ loss|, nats" if subject.loaded.objective == "causal_lm" else "mean divergence"
    limit = least if most is None else most
    try:
        value = subject.effect(hidden)
    except AtlasError as error:
        return Check(name, hook, False, None, limit, str(error))
    passed = value <= most if most is not None else least is not None and value > least
    return Check(name, hook, passed, value, limit, f"{unit}; {detail}")


@torch.inference_mode()
def _library_state(loaded: LoadedModel, contexts: Tensor, hook: str) -> tuple[Tensor, str]:
    point, n_layers = HookPoint.parse(hook), loaded.identity["n_layers"]
    index = point.layer + (point.site == "resid_post")
    if index == n_layers and loaded.adapter.final_norm is not None:
        seen: dict[str, Any] = {}
        norm = ModuleTensor(loaded.base.get_submodule(loaded.adapter.final_norm), "input")
        with observed(norm, lambda value: seen.update(value=value)):
            final_hidden(loaded, contexts)
        return seen["value"], "the input of the final norm"
    outputs = loaded.base(input_ids=contexts, output_hidden_states=True)
    return outputs.hidden_states[index], f"hidden_states[{index}]"


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value and abs(value) != float("inf") else None
