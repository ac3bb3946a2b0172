"""Every regime from planted evidence; the published rows get the published verdicts."""

import pandas as pd
import pytest
import torch

from atlas.config.study import Taxonomy
from atlas.evaluation.outcome import Evidence, atlas_evidence, guide_evidence, judge, published_evidence
from atlas.evaluation.redundancy import Nulls, decoder_geometry, redundancy_metrics
from atlas.studies.published import published_rows

LIMITS = Taxonomy()
HEALTHY = {
    "reconstruction": 0.8,
    "l0": 32.0,
    "k": 32,
    "dead": 0.01,
    "absorption": 0.2,
    "absorption_null": (0.15, 0.005),
    "duplicated_share": 0.0,
    "dense": 0.02,
}


def verdict(**changes) -> dict:
    return judge(Evidence(**(HEALTHY | changes)), LIMITS)


def or_none(value):
    return None if pd.isna(value) else float(value)


@pytest.mark.parametrize(
    "row", published_rows().to_dict("records"), ids=lambda row: f"{row['case_study']}-{row['layer']}"
)
def test_published_rows_get_published_verdicts(row):
    found = judge(
        published_evidence(*(or_none(row[n]) for n in ("loss_recovered_pct", "dead_pct", "absorption"))), LIMITS
    )
    assert found["verdict"] == row["outcome"]
    assert ("absorption" in found["unknown"]) == pd.isna(row["absorption"])
    assert "sparsity_constraint" in found["unknown"]


@pytest.mark.parametrize(
    ("expected", "rules", "changes"),
    [
        ("failed", ["failed_below"], {"reconstruction": 0.04, "dead": 0.99}),
        ("failed", ["failed_below"], {"reconstruction": -3.0}),
        ("failed", ["finite"], {"reconstruction": float("nan")}),
        ("failed", ["sparsity_constraint"], {"l0": 36.0}),
        ("failed", ["sparsity_constraint"], {"l0": 28.0}),
        ("dead", ["dead_above"], {"dead": 0.95, "absorption": 0.9}),
        ("duplicated", ["duplicated_above"], {"absorption": 0.6}),
        (
            "duplicated",
            ["duplicated_share_above"],
            {"duplicated_share": LIMITS.duplicated_share_above + 0.05, "dense": 0.9},
        ),
        ("noisy", ["dense_above"], {"dense": LIMITS.dense_above + 0.05, "reconstruction": 0.95, "dead": 0.6}),
        (
            "deceptively-good",
            ["deceptive_reconstruction", "deceptive_dead_above"],
            {"reconstruction": 0.9, "dead": 0.6},
        ),
        (
            "deceptively-good",
            ["deceptive_reconstruction", "deceptive_absorption_above"],
            {"reconstruction": 0.97, "absorption": 0.4},
        ),
        ("unhealthy", ["unhealthy_dead_above"], {"dead": 0.3, "reconstruction": 0.95}),
        ("unhealthy", ["deceptive_absorption_above"], {"absorption": 0.4}),
        ("unhealthy", ["unhealthy_dead_above"], {"dead": 0.3, "reconstruction": 0.3}),
        ("under-capacity", ["weak_below"], {"reconstruction": 0.49}),
        ("good", [], {}),
        ("good", [], {"has_target": False, "l0": 500.0, "k": None}),
    ],
)
def test_every_regime(expected, rules, changes):
    found = verdict(**changes)
    assert (found["verdict"], [rule["rule"] for rule in found["rules"]]) == (expected, rules)
    assert found["unknown"] == []


def test_rules_carry_value_and_threshold():
    assert verdict(dead=0.3)["rules"] == [{"rule": "unhealthy_dead_above", "value": 0.3, "threshold": 0.25}]
    assert verdict(l0=40.0)["rules"] == [{"rule": "sparsity_constraint", "value": 40.0, "threshold": 32}]


@pytest.mark.parametrize("missing", ["dead", "absorption", "duplicated_share", "dense"])
def test_missing_value_is_unknown_and_listed(missing):
    found = verdict(**{missing: None})
    assert found["unknown"] == [missing]
    assert found["verdict"] == "good"


def test_nothing_is_good_without_evidence():
    assert verdict(reconstruction=None)["verdict"] == "unknown"
    assert verdict(dead=None, absorption=None)["verdict"] == "unknown"
    assert verdict(reconstruction=None, dead=0.95)["verdict"] == "dead"
    assert "sparsity_constraint" in verdict(l0=None)["unknown"]


def test_redundancy_of_random_dictionaries_is_no_evidence_of_copies():
    """In few dimensions random directions are close: the null is a floor under the threshold."""
    W_dec = torch.randn(400, 16, generator=torch.Generator().manual_seed(3))
    redundancy, _ = redundancy_metrics(decoder_geometry(W_dec), W_dec.T, W_dec, Nulls(8, torch.device("cpu")))
    measure = redundancy["absorption_guide"]
    assert measure["value"] > LIMITS.duplicated_above
    null = (measure["null_mean"], measure["null_sd"])
    assert verdict(absorption=measure["value"], absorption_null=null)["verdict"] == "good"
    assert verdict(absorption=measure["value"], absorption_null=None)["verdict"] == "duplicated"


def test_evidence_of_both_protocols():
    measure = {"value": 0.3, "null_mean": 0.1, "null_sd": 0.01, "z": 20.0}
    redundancy = {"absorption_guide": measure, "share_max_cosine_above_09": measure | {"value": 0.1}}
    atlas = {
        "explained_variance": 0.994,
        "explained_variance_regular": 0.711,
        "l0": 32.0,
        "l0_target": 32,
        "dead_pct": 40.0,
        "dead_status": "untested",
        "dense_pct": 5.0,
    }
    evidence = atlas_evidence(atlas, redundancy)
    assert (evidence.reconstruction, evidence.dead, evidence.dense) == (0.711, None, 0.05)
    assert judge(evidence, LIMITS)["unknown"] == ["dead"]
    tested = atlas_evidence(atlas | {"dead_status": "dead"}, redundancy)
    assert judge(tested, LIMITS)["verdict"] == "unhealthy"
    guide = guide_evidence({"loss_recovered_pct": 95.0, "l0": 300.0, "dead_pct": 60.0}, redundancy)
    assert judge(guide, LIMITS)["verdict"] == "deceptively-good"
    assert judge(guide, LIMITS)["unknown"] == ["duplicated_share", "dense", "sparsity_constraint"]
    assert guide_evidence({"loss_recovered_pct": None, "l0": 3.0, "dead_pct": 0.0}, redundancy).reconstruction is None
