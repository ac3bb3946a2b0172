"""Every regime from planted evidence; the published rows get the published verdicts."""

import pandas as pd
import pytest
import torch

from atlas.config.study import Taxonomy
from atlas.evaluation.outcome import COPIES, VerdictInputs, atlas_evidence, guide_evidence, judge, published_evidence
from atlas.evaluation.redundancy import Nulls, decoder_geometry, redundancy_metrics
from atlas.studies.published import published_rows

LIMITS = Taxonomy()
HEALTHY = {
    "reconstruction": 0.8,
    "recovered": 0.95,
    "l0": 32.0,
    "k": 32,
    "dead": 0.01,
    "absorption": 0.2,
    "absorption_null": (0.15, 0.005),
    "copies": 0.0,
    "copies_null": (0.0, 0.0),
    "dense": 0.02,
}
ATLAS = {
    "explained_variance": 0.994,
    "explained_variance_regular": 0.711,
    "loss_recovered_mean": 0.7,
    "loss_recovered_mean_regular": 0.93,
    "l0": 32.0,
    "l0_target": 32,
    "dead_pct": 40.0,
    "dead_status": "untested",
    "dense_pct": 5.0,
}


def verdict(**changes) -> dict:
    return judge(VerdictInputs(**(HEALTHY | changes)), LIMITS)


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
    assert ("redundancy" in found["unknown"]) == pd.isna(row["absorption"])
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
            {"copies": LIMITS.duplicated_share_above + 0.05, "dense": 0.9},
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
        (
            "deceptively-good",
            ["deceptive_reconstruction", "unhealthy_share_above"],
            {"reconstruction": 0.97, "copies": 0.12},
        ),
        ("unhealthy", ["deceptive_absorption_above"], {"absorption": 0.4}),
        ("unhealthy", ["unhealthy_share_above"], {"copies": 0.12}),
        ("unhealthy", ["unhealthy_dead_above"], {"dead": 0.3, "reconstruction": 0.3}),
        ("under-capacity", ["weak_below"], {"reconstruction": 0.49}),
        ("under-capacity", ["weak_recovered_below"], {"recovered": 0.89}),
        ("under-capacity", ["weak_below", "weak_recovered_below"], {"reconstruction": 0.49, "recovered": 0.89}),
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


@pytest.mark.parametrize("missing", ["recovered", "dead", "dense"])
def test_missing_value_is_unknown_and_listed(missing):
    found = verdict(**{missing: None})
    assert found["unknown"] == [missing]
    assert found["verdict"] == "good"


def test_redundancy_is_known_by_either_measure():
    assert verdict(absorption=None)["unknown"] == verdict(copies=None)["unknown"] == []
    assert verdict(absorption=None, copies=None)["unknown"] == ["redundancy"]


def test_nothing_is_good_without_evidence():
    assert verdict(reconstruction=None)["verdict"] == "unknown"
    assert verdict(dead=None, absorption=None, copies=None)["verdict"] == "unknown"
    assert verdict(reconstruction=None, dead=0.95)["verdict"] == "dead"
    assert "sparsity_constraint" in verdict(l0=None)["unknown"]


def test_redundancy_of_random_dictionaries_is_no_evidence_of_copies():
    """In few dimensions random directions are close: the null is a floor under the threshold."""
    W_dec = torch.randn(400, 16, generator=torch.Generator().manual_seed(3))
    redundancy, _ = redundancy_metrics(decoder_geometry(W_dec), W_dec.T, W_dec, Nulls(8, torch.device("cpu")))
    for name, measure in (("absorption", redundancy["absorption_guide"]), ("copies", redundancy[COPIES])):
        assert measure["value"] > LIMITS.duplicated_share_above
        null = (measure["null_mean"], measure["null_sd"])
        assert verdict(**{name: measure["value"], f"{name}_null": null})["verdict"] == "good"
        assert verdict(**{name: measure["value"], f"{name}_null": None})["verdict"] == "duplicated"


@pytest.mark.parametrize(("share", "expected"), [(0.005, "good"), (0.15, "unhealthy"), (0.4, "duplicated")])
@pytest.mark.parametrize("n_latents", [400, 8000])
def test_the_same_health_gets_the_same_verdict_at_every_width(n_latents, share, expected):
    """The mean of the closest pairs grows with the width: a few copies of many latents would be a sick dictionary."""
    generator = torch.Generator().manual_seed(n_latents)
    W_dec = torch.nn.functional.normalize(torch.randn(n_latents, 96, generator=generator), dim=1)
    n_copies = round(share * n_latents / 2)  # a copy and what it copies are two latents of a pair
    noise = torch.nn.functional.normalize(torch.randn(n_copies, 96, generator=generator), dim=1)
    W_dec[n_latents - n_copies :] = W_dec[:n_copies] + 0.5 * noise
    geometry = decoder_geometry(W_dec)
    copies = {"value": geometry.values[COPIES], "null_mean": 0.0, "null_sd": 0.0}
    assert copies["value"] == pytest.approx(2 * n_copies / n_latents)
    evidence = atlas_evidence(ATLAS, {COPIES: copies})
    assert judge(evidence, LIMITS)["verdict"] == expected


def test_evidence_of_both_protocols():
    measure = {"value": 0.3, "null_mean": 0.1, "null_sd": 0.01, "z": 20.0}
    redundancy = {"absorption_guide": measure, COPIES: measure | {"value": 0.05}}
    evidence = atlas_evidence(ATLAS, redundancy)
    assert (evidence.reconstruction, evidence.recovered, evidence.dense) == (0.711, 0.93, 0.05)
    assert (evidence.dead, evidence.copies, evidence.absorption) == (None, 0.05, None)
    assert judge(evidence, LIMITS)["unknown"] == ["dead"]
    no_losses = {name: value for name, value in ATLAS.items() if "loss" not in name}
    assert judge(atlas_evidence(no_losses, redundancy), LIMITS)["unknown"] == ["recovered", "dead"]
    tested = atlas_evidence(ATLAS | {"dead_status": "dead"}, redundancy)
    assert judge(tested, LIMITS)["verdict"] == "unhealthy"
    guide = guide_evidence({"loss_recovered_pct": 95.0, "l0": 300.0, "dead_pct": 60.0}, redundancy)
    assert judge(guide, LIMITS)["verdict"] == "deceptively-good"
    assert judge(guide, LIMITS)["unknown"] == ["recovered", "dense", "sparsity_constraint"]
    assert guide_evidence({"loss_recovered_pct": None, "l0": 3.0, "dead_pct": 0.0}, redundancy).reconstruction is None
