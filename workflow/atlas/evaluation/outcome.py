"""The outcome taxonomy of an SAE: one verdict, with the rules that led to it. docs/metrics.md, section 7."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atlas.config.study import Taxonomy
from atlas.evaluation.sparsity import CONSTRAINT_TOLERANCE

# A redundancy that random dictionaries of the same shape reach is no evidence of copies: their mean plus this many
# standard deviations is a floor under every absorption threshold.
NULL_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. None means unknown: it fires no rule, and is listed as unknown.

    `reconstruction`, `dead`, `duplicated_share` and `dense` are shares, 0 to 1; `absorption` is absorption_guide,
    with mean and standard deviation of its null; `l0` and `k` are mean and target of the inference path, and
    `has_target` is False for an SAE that has none.
    """

    reconstruction: float | None
    l0: float | None = None
    k: int | None = None
    has_target: bool = True
    dead: float | None = None
    absorption: float | None = None
    absorption_null: tuple[float, float] | None = None
    duplicated_share: float | None = None
    dense: float | None = None

    def unknown(self) -> list[str]:
        """Names of what is not known."""
        names = [
            name
            for name in ("reconstruction", "dead", "absorption", "duplicated_share", "dense")
            if not self._has(name)
        ]
        constraint = not self.has_target or (self.l0 is not None and self.k is not None)
        return names if constraint else [*names, "sparsity_constraint"]

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


Rule = dict[str, Any]


def judge(evidence: Evidence, limits: Taxonomy) -> dict[str, Any]:
    """{"verdict", "rules": [{"rule", "value", "threshold"}], "unknown"}: the first regime whose rules fire.

    `good` means that no rule fired. Without a reconstruction, or without any of dead share and absorption, there is
    nothing to call good or under-capacity, and the verdict is `unknown`.
    """
    for verdict, test in _REGIMES:
        if rules := test(evidence, limits):
            return {"verdict": verdict, "rules": rules, "unknown": evidence.unknown()}
    health_known = evidence.dead is not None or evidence.absorption is not None
    if evidence.reconstruction is None or not health_known:
        return {"verdict": "unknown", "rules": [], "unknown": evidence.unknown()}
    weak = _below("weak_below", evidence.reconstruction, limits.weak_below)
    return {"verdict": "under-capacity" if weak else "good", "rules": weak, "unknown": evidence.unknown()}


def _failed(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    value = evidence.reconstruction
    if value is not None and not math.isfinite(value):
        # JSON has no NaN: the value is given as text.
        return [{"rule": "finite", "value": str(value), "threshold": "finite"}]
    rules = _below("failed_below", value, limits.failed_below)
    known = evidence.has_target and evidence.l0 is not None and evidence.k is not None
    if known and abs(evidence.l0 - evidence.k) > CONSTRAINT_TOLERANCE * evidence.k:
        rules.append({"rule": "sparsity_constraint", "value": evidence.l0, "threshold": evidence.k})
    return rules


def _dead(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    return _above("dead_above", evidence.dead, limits.dead_above)


def _duplicated(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    share = _above("duplicated_share_above", evidence.duplicated_share, limits.duplicated_share_above)
    return _absorbed("duplicated_above", evidence, limits.duplicated_above) + share


def _noisy(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    return _above("dense_above", evidence.dense, limits.dense_above)


def _deceptive(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    value, limit = evidence.reconstruction, limits.deceptive_reconstruction
    if value is None or value < limit:
        return []
    unhealthy = _above("deceptive_dead_above", evidence.dead, limits.deceptive_dead_above)
    unhealthy += _absorbed("deceptive_absorption_above", evidence, limits.deceptive_absorption_above)
    return [{"rule": "deceptive_reconstruction", "value": value, "threshold": limit}, *unhealthy] if unhealthy else []


def _unhealthy(evidence: Evidence, limits: Taxonomy) -> list[Rule]:
    rules = _above("unhealthy_dead_above", evidence.dead, limits.unhealthy_dead_above)
    return rules + _absorbed("deceptive_absorption_above", evidence, limits.deceptive_absorption_above)


_REGIMES: list[tuple[str, Callable[[Evidence, Taxonomy], list[Rule]]]] = [
    ("failed", _failed),
    ("dead", _dead),
    ("duplicated", _duplicated),
    ("noisy", _noisy),
    ("deceptively-good", _deceptive),
    ("unhealthy", _unhealthy),
]


def _above(rule: str, value: float | None, limit: float) -> list[Rule]:
    return [{"rule": rule, "value": value, "threshold": limit}] if value is not None and value > limit else []


def _below(rule: str, value: float | None, limit: float) -> list[Rule]:
    return [{"rule": rule, "value": value, "threshold": limit}] if value is not None and value < limit else []


def _absorbed(rule: str, evidence: Evidence, limit: float) -> list[Rule]:
    if evidence.absorption_null is not None:
        mean, sd = evidence.absorption_null
        limit = max(limit, mean + NULL_DEVIATIONS * sd)
    return _above(rule, evidence.absorption, limit)


def atlas_evidence(atlas: dict[str, Any], redundancy: dict[str, Any]) -> Evidence:
    """Evidence under the atlas protocol, from the results of sections 2 to 4.

    Reconstruction is explained variance *without* massive activations: a few of those rows carry almost all variance,
    and a dictionary that copies their one direction would pass with 99 % whatever it does elsewhere. Silent latents
    count as dead only after enough tokens.
    """
    share = redundancy["share_max_cosine_above_09"]
    return Evidence(
        reconstruction=atlas["explained_variance_regular"],
        l0=atlas["l0"],
        k=atlas["l0_target"],
        has_target=atlas["l0_target"] is not None,
        dead=atlas["dead_pct"] / 100 if atlas["dead_status"] == "dead" else None,
        **_absorption(redundancy),
        duplicated_share=share["value"],
        dense=atlas["dense_pct"] / 100,
    )


def guide_evidence(guide: dict[str, Any], redundancy: dict[str, Any]) -> Evidence:
    """Evidence under the guide protocol: its L0 is taken before TopK, so it says nothing of the constraint."""
    return Evidence(
        reconstruction=_share(guide["loss_recovered_pct"]), dead=guide["dead_pct"] / 100, **_absorption(redundancy)
    )


def published_evidence(loss_recovered_pct: float | None, dead_pct: float | None, absorption: float | None) -> Evidence:
    """Evidence of a published row; its null is not known."""
    return Evidence(reconstruction=_share(loss_recovered_pct), dead=_share(dead_pct), absorption=absorption)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _absorption(redundancy: dict[str, Any]) -> dict[str, Any]:
    measure = redundancy["absorption_guide"]
    return {"absorption": measure["value"], "absorption_null": (measure["null_mean"], measure["null_sd"])}
