"""The gate finds planted misreadings and stays silent on sound SAEs."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from planted_saes import D, fitted, planted, published

from atlas.errors import ReadingError
from atlas.published import audit
from atlas.published.audit import AuditRows, Explained, _is_better, audit_reading
from atlas.published.readings import SaeReading
from atlas.published.weights import scaled

ROOT = D**0.5


@cache
def data(n_features=96):
    return planted(n_features)


def mean_norm(hook="resid_post.3"):
    rows = data().rows
    return rows.by_hook[hook][torch.from_numpy(rows.counted)].norm(dim=1).mean().item()


@cache
def sound(architecture, hook="resid_post.3", target=None, n_features=96, **more):
    return fitted(data(n_features), architecture, hook, target, **more)


SOUND = [
    *[(name, "resid_post.3", None, 96, {}) for name in ("relu", "topk", "jumprelu", "batch_topk", "gated")],
    *[(name, "resid_post.2", None, 96, {}) for name in ("relu", "topk", "jumprelu", "matryoshka_batch_topk")],
    *[(name, "resid_post.4", None, 128, {}) for name in ("relu", "topk", "jumprelu", "batch_topk")],
    ("norm_topk", "mlp_out.3", None, 96, {}),
    ("group_max", "mlp_out.3", None, 128, {}),
    ("relu", "mlp_out.3", None, 48, {}),  # as many latents as dimensions
    ("topk", "resid_post.3", None, 96, {"row_scale": "layer_norm"}),
    ("relu", "resid_post.3", None, 96, {"row_scale": "constant_norm"}),
    ("jumprelu", "resid_post.3", None, 96, {"subtracts_b_dec": False}),
    ("relu", "resid_post.3", "mlp_out.4", 96, {}),
    ("topk", "resid_post.3", "mlp_out.4", 96, {}),
]


@pytest.mark.parametrize(("architecture", "hook", "target", "n_features", "more"), SOUND)
def test_a_sound_sae_raises_no_alarm(architecture, hook, target, n_features, more):
    sae = sound(architecture, hook, target, n_features, **more)
    report = audit_reading(published(sae, hook, target), data(n_features).rows)
    assert report.is_sound and not report.accepted
    assert report.stated.fvu < 0.6 and len(report.others) >= 5
    assert report.n_documents == 40 and report.n_rows == 40 * 24


def test_at_least_twenty_are_sound():
    assert len(SOUND) >= 20


def with_decoder_norms(sae):
    """Norms in the encoder and still in the decoder: folded twice."""
    norms = torch.linspace(0.3, 3, sae.n_latents)
    return replace(sae, W_dec=norms[:, None] * torch.nn.functional.normalize(sae.W_dec, dim=1)), norms


def unit(sae):
    norms = sae.W_dec.norm(dim=1)
    return replace(sae, W_enc=sae.W_enc * norms, b_enc=sae.b_enc * norms, W_dec=sae.W_dec / norms[:, None])


def log_thresholds(sae):
    return replace(sae, latent_parameters={"thresholds": sae.latent_parameters["thresholds"].log()})


def times_threshold(sae, factor):
    return replace(sae, latent_parameters={"thresholds": factor * sae.latent_parameters["thresholds"]})


def square(architecture="relu"):
    return sound(architecture, "mlp_out.3", None, 48)


WRONG = {
    "b_dec is not subtracted": (
        lambda: replace(sound("relu"), subtracts_b_dec=False),
        {},
        "b_dec subtracted before encoding",
    ),
    "b_dec is subtracted": (
        lambda: replace(sound("relu", subtracts_b_dec=False), subtracts_b_dec=True),
        {},
        "b_dec not subtracted before encoding",
    ),
    "rows times √d": (lambda: scaled(sound("relu"), ROOT), {}, "rows times 1 / √d_model"),
    "norm of the data folded twice": (
        lambda: scaled(sound("topk"), ROOT / mean_norm()),
        {},
        "rows times mean norm / √d_model",
    ),
    "norm of the data forgotten": (
        lambda: scaled(sound("jumprelu", lift=1.0), mean_norm() / ROOT),
        {},
        "rows times √d_model / mean norm",
    ),
    "the layer before": (lambda: sound("topk"), {"hook": "resid_post.2"}, "rows of resid_post.3"),
    "the layer behind": (lambda: sound("jumprelu"), {"hook": "resid_post.4"}, "rows of resid_post.3"),
    "another site": (lambda: sound("relu", "mlp_out.3"), {"hook": "resid_post.3"}, "rows of mlp_out.3"),
    "first positions counted": (lambda: sound("topk"), {"all_counted": True}, "rows of first positions left out"),
    "decoder transposed": (
        lambda: replace(square(), W_dec=square().W_dec.T.contiguous()),
        {"hook": "mlp_out.3"},
        "decoder transposed",
    ),
    "thresholds ÷ norm": (
        lambda: times_threshold(sound("jumprelu", lift=1.0), mean_norm() / ROOT),
        {},
        "thresholds times √d_model / mean norm",
    ),
    "norms of the decoder folded and kept": (
        lambda: replace(unit(sound("relu")), W_dec=10 * sound("relu").W_dec),
        {},
        "decoder rows brought to norm 1",
    ),
    "layer norm forgotten": (
        lambda: replace(sound("topk", row_scale="layer_norm"), row_scale=None),
        {},
        "each row normalised by layer_norm",
    ),
    "target of a transcoder": (
        lambda: sound("relu", "resid_post.3", "mlp_out.4"),
        {"hook": "resid_post.3", "target_hook": "resid_post.4"},
        "target mlp_out.4",
    ),
    "source of a transcoder": (
        lambda: sound("relu", "resid_post.3", "mlp_out.4"),
        {"hook": "resid_post.2", "target_hook": "mlp_out.4"},
        "rows of resid_post.3",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_misreading_is_found_and_named(name):
    make, keys, expected = WRONG[name]
    keys = dict(keys)
    rows = data(48 if "transposed" in name else 96).rows
    rows = replace(rows, counted=np.ones_like(rows.counted)) if keys.pop("all_counted", False) else rows
    wrong = published(make())
    hooks = {"hook": "resid_post.3"} | keys
    accepted = audit_reading(wrong, rows, **hooks, accept_reading=True)
    assert accepted.accepted and accepted.better.reading == expected, accepted.others[:3]
    fewer = accepted.better.l0 <= 0.5 * accepted.stated.l0
    assert accepted.better.less[1] > (-0.05 if fewer else 0.1) * accepted.stated.fvu
    with pytest.raises(ReadingError, match="accept_reading") as raised:
        audit_reading(wrong, rows, **hooks)
    for shown in (expected, hooks["hook"], f"{accepted.stated.fvu:.3g}", f"{accepted.better.fvu:.3g}"):
        assert shown in str(raised.value)


def test_more_latents_are_no_evidence_against_what_a_decoder_was_made_for():
    """The same thresholds, far above the features': as a misreading they are found, as what was trained they stand."""
    high, rows = times_threshold(sound("jumprelu", lift=1.0), mean_norm() / ROOT), data().rows
    kept = rows.by_hook["resid_post.3"][data().kept]
    latents = high.encode(kept).double()
    own = torch.linalg.lstsq(latents, (kept - high.b_dec).double(), driver="gelsd").solution.float()
    wrong, right = (
        audit_reading(published(sae), rows, accept_reading=True) for sae in (high, replace(high, W_dec=own))
    )
    lower = {each.reading: each for each in right.others}["thresholds times √d_model / mean norm"]
    assert right.is_sound and right.stated.gain == pytest.approx(1, abs=0.02) and lower.gain < 0.9
    assert not wrong.is_sound and wrong.better.reading == lower.reading
    assert wrong.better.distance_from_one < wrong.stated.distance_from_one


@pytest.mark.parametrize(("gain", "other_gain", "better"), [(1.0, 0.8, False), (1.3, 1.0, True), (0.7, None, False)])
def test_with_more_latents_the_gain_decides_too(gain, other_gain, better):
    stated = Explained("as stated", 0.6, 8, gain=gain)
    other = Explained("lower thresholds", 0.25, 100, (0.35, 0.33, 0.37), other_gain)
    assert _is_better(stated, other, may_keep_more=True) == better
    assert _is_better(stated, replace(other, l0=8), may_keep_more=True)


def test_the_gain_says_what_passes():
    """1 for the latents that a decoder was fitted to, below 1 where more pass, above 1 where some are missing."""
    sae = sound("topk", lift=1.0)
    gains = [
        audit_reading(published(replace(sae, k=k)), data().rows, accept_reading=True).stated.gain for k in (4, 8, 24)
    ]
    assert gains[0] > 1.02 and gains[1] == pytest.approx(1, abs=0.02) and gains[2] < 0.98


def test_far_too_many_latents_are_found_where_the_release_says_how_many():
    """More latents explain more: by variance alone, a TopK read as ReLU is the better reading."""
    lifted = {name: sound(name, lift=1.0) for name in ("topk", "jumprelu")}
    wrong = {
        "TopK of 8": (replace(lifted["topk"], architecture="relu", k=None), 8),
        "thresholds are logarithms": (log_thresholds(lifted["jumprelu"]), 5),
    }
    for expected, (sae, l0) in wrong.items():
        one = replace(published(sae), l0=l0)
        report = audit_reading(one, data().rows, accept_reading=True)
        assert report.nearest.reading == expected and report.accepted
        with pytest.raises(ReadingError, match=rf"the release says {l0} latents a row, .*'{expected}'"):
            audit_reading(one, data().rows)
    for name in lifted:
        assert audit_reading(replace(published(lifted[name]), l0=8), data().rows).is_sound


def test_what_a_format_leaves_open_is_compared():
    """Files of a TopK and of a BatchTopK SAE differ only in a name that may be missing."""
    true = sound("batch_topk", lift=1.0)
    wrong = replace(true, architecture="topk", k=2, threshold=None)
    report = audit_reading(published(wrong, threshold_of_the_file=true), data().rows, accept_reading=True)
    compared = {each.reading: each for each in report.others}
    assert compared["threshold_of_the_file"].less[1] > 0.1 * report.stated.fvu and not report.is_sound


def test_blocks_of_rows_are_immaterial_and_bounded(monkeypatch):
    """Rows times latents are never held at once: a large dictionary is read by fewer rows at a time."""
    whole = audit_reading(published(sound("topk")), data().rows).stated
    seen, real = [], SaeReading.latents
    monkeypatch.setattr(audit, "_CHUNK_ELEMENTS", 20 * 96)
    monkeypatch.setattr(SaeReading, "latents", lambda self, rows: seen.append(len(rows)) or real(self, rows))
    parts = audit_reading(published(sound("topk")), data().rows).stated
    assert max(seen) == 20
    assert (parts.fvu, parts.gain) == pytest.approx((whole.fvu, whole.gain), rel=1e-5) and parts.l0 == whole.l0


def test_the_report_is_for_the_card():
    described = audit_reading(published(sound("topk")), data().rows).described()
    assert described["hook"] == "resid_post.3" and described["stated"]["l0"] == 8
    assert isinstance(described["others"][0]["less"][1], float)


def test_rows_that_do_not_fit_are_refused_before_anything_is_computed():
    rows, sae = data().rows, published(sound("topk"))
    with pytest.raises(ReadingError, match=r"rows of resid_post\.9 are not stored, only of resid_post\.2"):
        audit_reading(sae, rows, "resid_post.9")
    narrow = replace(rows, by_hook={"resid_post.3": rows.by_hook["resid_post.3"][:, :20]})
    with pytest.raises(ReadingError, match=r"d_model of this SAE is 48, but rows of resid_post\.3 are 20 wide"):
        audit_reading(sae, narrow)
    one = AuditRows(rows.by_hook, np.zeros_like(rows.document), rows.position, rows.counted)
    with pytest.raises(ReadingError, match="fewer than two documents"):
        audit_reading(sae, one)
    with pytest.raises(ReadingError, match="hook is stated neither by the files"):
        audit_reading(replace(sae, hook=None), rows)
