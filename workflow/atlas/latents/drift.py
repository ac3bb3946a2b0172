"""Compare the use of a dictionary on two corpora, against random halves of one. docs/metrics.md, section 6."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Real
from jaxtyping import Integer as Int

from atlas.errors import EvaluationError
from atlas.statistics.intervals import CONFIDENCE, difference_interval, rate_lower
from atlas.statistics.ranks import rank_correlation

_NO_SPREAD = 1e-9
SPLITS = 50
# Given beside numbers, and none themselves: how much text there was, and what was asked for.
_NO_RESULTS = ("dead_tokens", "dead_rate_bound", "loss_units", "l0_target")


@dataclass(frozen=True, eq=False)
class FiringCounts:
    """Firings of latents, and tokens, in each group of documents of a corpus."""

    by_group: Int[np.ndarray, "n_latents groups"]
    tokens: Int[np.ndarray, " groups"]

    @property
    def counts(self) -> Int[np.ndarray, " n_latents"]:
        """Firings over all groups."""
        return self.by_group.sum(1, dtype=np.int64)

    @property
    def n_tokens(self) -> int:
        """Tokens of all groups."""
        return int(self.tokens.sum())

    def part(self, groups: Int[np.ndarray, " some"]) -> "FiringCounts":
        """Some of the groups."""
        return FiringCounts(self.by_group[:, groups], self.tokens[groups])

    def up_to(self, order: Int[np.ndarray, " some"], n_tokens: int) -> "FiringCounts":
        """The first groups in `order` that have `n_tokens` tokens together, at least one."""
        n = int(np.searchsorted(np.cumsum(self.tokens[order]), n_tokens)) + 1
        return self.part(order[:n])


def log_ratio(here: FiringCounts, there: FiringCounts) -> Float[np.ndarray, " n_latents"]:
    """Natural logarithm of the ratio of firing rates there and here, each (count + 0.5) / (T + 1)."""
    return np.log((there.counts + 0.5) / (there.n_tokens + 1)) - np.log((here.counts + 0.5) / (here.n_tokens + 1))


def newly_silent(here: FiringCounts, there: FiringCounts) -> Bool[np.ndarray, " n_latents"]:
    """Latents that are silent there although they should not be.

    Silent on all T tokens there, where a latent at the one-sided 95 % Clopper–Pearson lower bound of its rate here
    would be silent with a chance below 5 %.
    """
    lower = rate_lower(here.counts, here.n_tokens)
    expected = there.n_tokens * np.log1p(-np.minimum(lower, 1 - 1e-12))
    return (there.counts == 0) & (expected < np.log(1 - CONFIDENCE))


def usage_drift(here: FiringCounts, there: FiringCounts) -> dict[str, float]:
    """Return how differently two corpora use a dictionary, over latents that fire on either.

    `js_divergence` in bits, of the shares of all firings; `spearman` of the firing counts; `mean_abs_log_ratio`;
    `newly_silent_share`, of the latents that fire here. NaN where there is nothing to compare.
    """
    first, second = here.counts, there.counts
    seen = (first + second) > 0
    ratios, silent = log_ratio(here, there)[seen], newly_silent(here, there)
    spearman = rank_correlation(first[seen], second[seen])
    return {
        "js_divergence": js_divergence(first, second),
        "spearman": np.nan if spearman is None else spearman,
        "mean_abs_log_ratio": float(np.abs(ratios).mean()) if len(ratios) else np.nan,
        "newly_silent_share": float(silent.sum() / (first > 0).sum()) if (first > 0).any() else np.nan,
    }


def js_divergence(first: Real[np.ndarray, " n"], second: Real[np.ndarray, " n"]) -> float:
    """Jensen–Shannon divergence of two vectors of counts, in bits: 0 when proportional, 1 when disjoint."""
    if not (first.sum() and second.sum()):
        return np.nan
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def divergence(of: np.ndarray) -> float:
        some = of > 0
        return float((of[some] * np.log2(of[some] / middle[some])).sum())

    return (divergence(p) + divergence(q)) / 2


def drift_from(here: FiringCounts, there: FiringCounts, seed: int = 0) -> dict[str, Any]:
    """`usage_drift`, and each of its numbers between halves of equal size against random halves of `here`.

    Per number: ``value`` (all text), ``halves`` (a random half of `here` against as many tokens of `there`),
    ``null_mean`` and ``null_sd`` (against the other half of `here`), ``z`` = (halves − null_mean) / null_sd, all over
    `SPLITS` splits by documents. With fewer than two documents here, only ``value`` is defined.
    """
    values = usage_drift(here, there)
    null, halves = _split_drifts(here, there, seed)
    return {name: {"value": value, **_against(halves, null, name)} for name, value in values.items()}


def _split_drifts(here: FiringCounts, there: FiringCounts, seed: int) -> tuple[list[dict], list[dict]]:
    generator = np.random.Generator(np.random.PCG64(seed))
    if len(here.tokens) < 2:
        return [], []
    size = min(here.n_tokens // 2, there.n_tokens)
    null, halves = [], []
    for _ in range(SPLITS):
        order, other = generator.permutation(len(here.tokens)), generator.permutation(len(there.tokens))
        middle = int(np.searchsorted(np.cumsum(here.tokens[order]), here.n_tokens / 2)) + 1
        middle = min(middle, len(order) - 1)
        one = here.up_to(order[:middle], size)
        null.append(usage_drift(one, here.up_to(order[middle:], size)))
        halves.append(usage_drift(one, there.up_to(other, size)))
    return null, halves


def _against(halves: list[dict], null: list[dict], name: str) -> dict[str, float | None]:
    if not null:
        return dict.fromkeys(("halves", "null_mean", "null_sd", "z"))
    mean, sd = np.mean([draw[name] for draw in null]), np.std([draw[name] for draw in null], ddof=1)
    matched = np.mean([draw[name] for draw in halves])
    return {
        "halves": float(matched),
        "null_mean": float(mean),
        "null_sd": float(sd),
        # Two documents have one split only: what is left of the spread is rounding.
        "z": float((matched - mean) / sd) if sd > _NO_SPREAD * abs(mean) else None,
    }


def metric_changes(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Change of every number of an evaluation from one corpus to another, with an interval where both have one.

    The interval combines the two by their distances from the values (MOVER, Zou and Donner 2008): text of the two
    corpora is independent.
    """
    changes = {}
    for name, before in here.items():
        after = there.get(name)
        if name in _NO_RESULTS or not (_is_number(before) and _is_number(after)):
            continue
        change: dict[str, Any] = {"from": before, "to": after, "change": after - before, "interval": None}
        first, second = here.get(f"{name}_interval"), there.get(f"{name}_interval")
        if first and second:
            change["interval"] = [
                float(end) for end in difference_interval(before, first[0], first[1], after, second[0], second[1])
            ]
        changes[name] = change
    return changes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_distinct(fingerprints: Mapping[str, str]) -> None:
    """Raise EvaluationError when two corpora (name → fingerprint) are the same text."""
    seen: dict[str, str] = {}
    for name, fingerprint in fingerprints.items():
        if fingerprint in seen:
            raise EvaluationError(
                f"corpora {seen[fingerprint]!r} and {name!r} are the same text (fingerprint {fingerprint[:12]}…): "
                "there is no drift between a text and itself; give one of them text of its own"
            )
        seen[fingerprint] = name
