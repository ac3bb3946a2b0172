"""Audit: is what the hooks deliver really the tensor that the model computes with? Asked before anything is trained."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.errors import AuditError
from atlas.files import write_json
from atlas.massive import MASSIVE_FACTOR
from atlas.models import checks
from atlas.models.checks import AuditedModel, Check
from atlas.models.forward import capture
from atlas.models.load import LoadedModel
from atlas.token_text import text_inside

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
_LISTED = 20


def audit_model(
    loaded: LoadedModel,
    contexts: Int[Tensor, "contexts position"],
    counted: Bool[Tensor, "contexts position"],
    hooks: Sequence[str],
    storage_dtype: torch.dtype,
) -> dict[str, Any]:
    """Run every check at every hook on real text; returns a JSON-able report with status "pass" or "fail".

    A check that cannot be made has `passed: null` and its reason in `detail`; when a hook's values are not finite or
    do not fit the store, the checks that would need them are so recorded. Beside the checks stand the norms of each
    hook and the places of its massive activations. Raises AuditError when no position counts.
    """
    if not bool(counted.any()):
        raise AuditError(
            f"audit of {loaded.identity['name']}: none of {counted.numel()} positions counts; give it text"
        )
    subject = AuditedModel(loaded, contexts, counted, storage_dtype)
    captured = capture(loaded, contexts, hooks)
    output = checks.check_clean_output(subject)
    results = [output, checks.check_clean_loss(subject)] if output.passed else [output]
    for hook in hooks:
        results += _check_hook(subject, hook, captured[hook], output)
    failed = [check for check in results if check.passed is False]
    has_loss = loaded.objective == "causal_lm" and output.passed
    return {
        "model": loaded.identity["name"],
        "weights_sha256": loaded.identity["weights_sha256"],
        "status": "fail" if failed else "pass",
        "objective": loaded.objective,
        "random_weights": loaded.identity.get("random_weights"),
        "notes": _notes(loaded),
        "dtype": loaded.identity["dtype"],
        "storage_dtype": str(storage_dtype).removeprefix("torch."),
        "n_contexts": contexts.shape[0],
        "context_length": contexts.shape[1],
        "counted_tokens": int(counted.sum()),
        "loss_clean": subject.clean_loss[subject.scored].mean().item() if has_loss else None,
        "checks": [asdict(check) for check in results],
        "norms": {hook: norm_summary(loaded, contexts, counted, captured[hook]) for hook in hooks},
    }


def _notes(loaded: LoadedModel) -> list[str]:
    """Return what the report does not show; checks of hooks hold for any weights, numbers about language do not."""
    if loaded.identity.get("random_weights") is None:
        return []
    return [
        "weights are random: loss_clean is near that of a uniform guess, zero_ablation_matters says that the hook is "
        "on the way to the output and not that it carries anything, and norms and massive activations are those of "
        "the initialisation"
    ]


def write_audit(audit: dict[str, Any], target: Path) -> None:
    """Write the report of `audit_model`, then raise AuditError when it failed, with each failed check's numbers."""
    write_json(target, audit)
    failed = [check for check in audit["checks"] if check["passed"] is False]
    if failed:
        lines = "\n".join(f"  {_sentence(check)}" for check in failed)
        raise AuditError(
            f"audit of model {audit['model']} failed {len(failed)} of {len(audit['checks'])} checks:\n{lines}\n"
            f"Nothing is trained on these activations. The whole report is {target}"
        )


def norm_summary(
    loaded: LoadedModel,
    contexts: Int[Tensor, "contexts position"],
    counted: Bool[Tensor, "contexts position"],
    activation: Float[Tensor, "contexts position d_model"],
) -> dict[str, Any]:
    """Quantiles of the row norms ‖x‖₂ over the counted positions, and where massive activations are.

    `massive` lists the largest of them, also at positions that do not count (`counted: false`); `massive_share` is
    among the counted.
    """
    norms = activation.float().norm(dim=-1)
    rows = norms[counted]
    if not bool(norms.isfinite().all()):
        return {"reason": "not finite"}
    median = rows.median().item()
    points = torch.quantile(rows, torch.tensor(QUANTILES, device=rows.device))
    return {
        "median": median,
        "quantiles": {str(q): value for q, value in zip(QUANTILES, points.tolist(), strict=True)},
        "max": rows.max().item(),
        "max_abs": activation.abs().max().item(),
        "massive_share": (rows > MASSIVE_FACTOR * median).float().mean().item(),
        "massive": _massive(loaded, contexts, counted, norms, MASSIVE_FACTOR * median),
    }


def _massive(
    loaded: LoadedModel, contexts: Tensor, counted: Tensor, norms: Tensor, threshold: float
) -> list[dict[str, Any]]:
    found = (norms > threshold).nonzero().tolist()
    found.sort(key=lambda place: -norms[place[0], place[1]].item())
    return [
        {
            "context": context,
            "position": position,
            "token": int(contexts[context, position]),
            "text": text_inside(loaded.tokenizer, [int(contexts[context, position])]),
            "norm": norms[context, position].item(),
            "counted": bool(counted[context, position]),
        }
        for context, position in found[:_LISTED]
    ]


def _check_hook(subject: AuditedModel, hook: str, captured: Tensor, output: Check) -> list[Check]:
    values = [checks.check_finite(hook, captured), checks.check_storage_range(hook, captured, subject.storage_dtype)]
    broken = next((check for check in (output, *values) if not check.passed), None)
    if broken is not None:
        names = ("equals_library", "sums_to_block_output", "splice_is_exact", "zero_ablation_matters")
        names += ("run_from_stored", "alone_as_in_batch")
        reason = f"not made: {broken.name} failed"
        return [*values, *(Check(name, hook, None, None, None, reason) for name in names)]
    return [
        *values,
        checks.check_against_library(subject, hook),
        checks.check_block_sum(subject, hook),
        checks.check_splice(subject, hook, captured),
        checks.check_zero_ablation(subject, hook),
        checks.check_run_from(subject, hook, captured),
        checks.check_row_consistency(subject, hook, captured),
    ]


def _sentence(check: dict[str, Any]) -> str:
    place = f" at {check['hook']}" if check["hook"] else ""
    value = "no finite number" if check["value"] is None else f"{check['value']:.6g}"
    limit = "" if check["limit"] is None else f", limit {check['limit']:.6g}"
    return f"{check['name']}{place}: found {value}{limit} ({check['detail']})"
