"""The outcome taxonomy of an SAE: one verdict, with the rules that led to it. docs/metrics.md, section 7."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas.config.study import Taxonomy
from atlas.evaluation.sparsity import CONSTRAINT_TOLERANCE

# A redundancy that random dictionaries of the same shape reach is no evidence of copies: their mean plus this many
# standard deviations is a floor under every threshold of redundancy.
NULL_DEVIATIONS = 3.0
# The measure of redundancy that verdicts of the atlas protocol use.
COPIES = "share_max_cosine_above_07"


@dataclass(frozen=True)
class VerdictInputs:
    """Numbers that a verdict rests on. None means unknown: it fires no rule, and is listed as unknown.

    `reconstruction`, `dead`, `copies` (latents with a decoder cosine above .7 to another one) and `dense` are shares, 0
    to 1; `recovered` is the share of the loss that the SAE recovers against the mean row, both put in place of regular
    rows. `absorption` is absorption_guide. Nulls are mean and standard deviation of random dictionaries. `l0` and `k`
    are mean and target of the inference path, and `has_target` is False for an SAE that has none.
    """

    reconstruction: float | None
    recovered: float | None = None
    l0: float | None = None
    k: int | None = None
    has_target: bool = True
    dead: float | None = None
    absorption: float | None = None
    absorption_null: tuple[float, float] | None = None
    copies: float | None = None
    copies_null: tuple[float, float] | None = None
    dense: float | None = None

    def unknown(self) -> list[str]:
        """Names of what is not known; absorption and copies are two measures of one thing, redundancy."""
        names = [name for name in ("reconstruction", "recovered", "dead", "dense") if getattr(self, name) is None]
        if not self.redundancy_known:
            names.append("redundancy")
        constraint = not self.has_target or (self.l0 is not None and self.k is not None)
        return names if constraint else [*names, "sparsity_constraint"]

    @property
    def redundancy_known(self) -> bool:
        """Return whether any measure of redundancy is known."""
        return self.absorption is not None or self.copies is not None


Rule = dict[str, Any]


def judge(evidence: VerdictInputs, limits: Taxonomy) -> dict[str, Any]:
    """{"verdict", "rules": [{"rule", "value", "threshold"}], "unknown"}: the first regime whose rules fire.

    `good` means that no rule fired. Without a reconstruction, or without any of dead share and redundancy, there is
    nothing to call good or under-capacity, and the verdict is `unknown`.
    """
    for verdict, test in _REGIMES:
        if rules := test(evidence, limits):
            return {"verdict": verdict, "rules": rules, "unknown": evidence.unknown()}
    health_known = evidence.dead is not None or evidence.redundancy_known
    if evidence.reconstruction is None or not health_known:
        return {"verdict": "unknown", "rules": [], "unknown": evidence.unknown()}
    weak = _below("weak_below", evidence.reconstruction, limits.weak_below)
    weak += _below("weak_recovered_below", evidence.recovered, limits.weak_recovered_below)
    return {"verdict": "under-capacity" if weak else "good", "rules": weak, "unknown": evidence.unknown()}


def _failed(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    value = evidence.reconstruction
    if value is not None and not math.isfinite(value):
        # JSON has no NaN: the value is given as text.
        return [{"rule": "finite", "value": str(value), "threshold": "finite"}]
    rules = _below("failed_below", value, limits.failed_below)
    l0, k = evidence.l0, evidence.k
    if evidence.has_target and l0 is not None and k is not None and abs(l0 - k) > CONSTRAINT_TOLERANCE * k:
        rules.append({"rule": "sparsity_constraint", "value": l0, "threshold": k})
    return rules


def _dead(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    return _above("dead_above", evidence.dead, limits.dead_above)


def _duplicated(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    return _absorbed("duplicated_above", evidence, limits.duplicated_above) + _copied(
        "duplicated_share_above", evidence, limits.duplicated_share_above
    )


def _noisy(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    return _above("dense_above", evidence.dense, limits.dense_above)


def _deceptive(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    value, limit = evidence.reconstruction, limits.deceptive_reconstruction
    if value is None or value < limit:
        return []
    unhealthy = _above("deceptive_dead_above", evidence.dead, limits.deceptive_dead_above) + _redundant(
        evidence, limits
    )
    return [{"rule": "deceptive_reconstruction", "value": value, "threshold": limit}, *unhealthy] if unhealthy else []


def _unhealthy(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    return _above("unhealthy_dead_above", evidence.dead, limits.unhealthy_dead_above) + _redundant(evidence, limits)


def _redundant(evidence: VerdictInputs, limits: Taxonomy) -> list[Rule]:
    return _absorbed("deceptive_absorption_above", evidence, limits.deceptive_absorption_above) + _copied(
        "unhealthy_share_above", evidence, limits.unhealthy_share_above
    )


_REGIMES: list[tuple[str, Callable[[VerdictInputs, Taxonomy], list[Rule]]]] = [
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


def _absorbed(rule: str, evidence: VerdictInputs, limit: float) -> list[Rule]:
    return _above(rule, evidence.absorption, above_null(limit, evidence.absorption_null))


def _copied(rule: str, evidence: VerdictInputs, limit: float) -> list[Rule]:
    return _above(rule, evidence.copies, above_null(limit, evidence.copies_null))


def above_null(limit: float, null: tuple[float, float] | None) -> float:
    """A limit of redundancy, at least what random dictionaries reach: mean + `NULL_DEVIATIONS` standard deviations."""
    return limit if null is None else max(limit, null[0] + NULL_DEVIATIONS * null[1])


def atlas_evidence(atlas: Mapping[str, Any], redundancy: Mapping[str, Any]) -> VerdictInputs:
    """Evidence under the atlas protocol, from the results of sections 2 to 4.

    Reconstruction is explained variance *without* massive activations: a few of those rows carry almost all variance,
    and a dictionary that copies their one direction would pass with 99 % whatever it does elsewhere. The loss is that
    with massive activations left as they are, for training leaves them out. Redundancy is a share of latents, which
    means the same at every width. Silent latents count as dead only after enough tokens.
    """
    copies = redundancy[COPIES]
    return VerdictInputs(
        reconstruction=atlas["explained_variance_regular"],
        recovered=atlas.get("loss_recovered_mean_regular"),
        l0=atlas["l0"],
        k=atlas["l0_target"],
        has_target=atlas["l0_target"] is not None,
        dead=atlas["dead_pct"] / 100 if atlas["dead_status"] == "dead" else None,
        copies=copies["value"],
        copies_null=(copies["null_mean"], copies["null_sd"]),
        dense=atlas["dense_pct"] / 100,
    )


def guide_evidence(guide: Mapping[str, Any], redundancy: Mapping[str, Any]) -> VerdictInputs:
    """Evidence under the guide protocol: its L0 is taken before TopK, so it says nothing of the constraint."""
    measure = redundancy["absorption_guide"]
    return VerdictInputs(
        reconstruction=_share(guide["loss_recovered_pct"]),
        dead=guide["dead_pct"] / 100,
        absorption=measure["value"],
        absorption_null=(measure["null_mean"], measure["null_sd"]),
    )


def published_evidence(
    loss_recovered_pct: float | None, dead_pct: float | None, absorption: float | None
) -> VerdictInputs:
    """Evidence of a published row; its null is not known."""
    return VerdictInputs(reconstruction=_share(loss_recovered_pct), dead=_share(dead_pct), absorption=absorption)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
