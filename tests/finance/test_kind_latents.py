"""Latents of a kind: planted ones are counted, others are not, and the null says what chance counts."""

import numpy as np
import pytest
from latent_scene import random_firings, random_tokens, text_of, write_codes

from atlas.finance.kinds import KINDS
from atlas.finance.latents import Rule, firings_of, latent_kinds
from atlas.latents.drift import drift_from

RULE = Rule(min_mass=0.5, min_firings=10)


def planted(tmp_path, share: float = 0.06, leak: float = 0.0, n_random: int = 40):
    """Latent 0 fires on numbers, 1 on names, 2 on numbers but 9 times only, 3 also elsewhere; the others anywhere."""
    tokens = random_tokens(200)
    generator = np.random.default_rng(3)
    kinds = generator.choice(
        [KINDS.index(kind) for kind in ("number", "entity", "other")], len(tokens), p=[share, 0.1, 0.9 - share]
    )
    number, name = kinds == KINDS.index("number"), kinds == KINDS.index("entity")
    dense = random_firings(tokens, [0, 0, 0, 0, *[0.05] * n_random])
    dense[:, 0], dense[:, 1] = number, name
    counted = np.flatnonzero(number & (tokens != 0))
    dense[counted[:9], 2] = 1
    dense[counted, 3] = 1
    elsewhere = np.flatnonzero(~number & (tokens != 0))
    dense[elsewhere[: int(len(counted) * leak)], 3] = 1
    codes = write_codes(tmp_path / "c.h5", dense, tokens)
    return codes, text_of(codes), kinds


def test_planted_latents_are_counted_and_no_others(tmp_path):
    found = latent_kinds(*planted(tmp_path), RULE, 100, 200)
    assert np.flatnonzero(found.is_kind["number"]).tolist() == [0, 3]
    assert np.flatnonzero(found.is_kind["entity"]).tolist() == [1]
    assert found.counts["ratio"].value == 0
    assert set(found.counts["number"].draws) == {2, 3}  # latent 2 is one firing short of the rule
    low, high = found.counts["number"].interval
    assert low < 2 <= high < low + 3
    assert found.null["number"].mean() < 0.1 and found.null["entity"].mean() < 0.1


@pytest.mark.parametrize(("leak", "expected"), [(0.9, True), (1.1, False)])
def test_more_than_half_of_the_mass_decides(tmp_path, leak, expected):
    assert latent_kinds(*planted(tmp_path, leak=leak), RULE, 20, 100).is_kind["number"][3] == expected


def test_the_null_counts_what_a_frequent_kind_collects_by_chance(tmp_path):
    found = latent_kinds(*planted(tmp_path, share=0.6), RULE, 50, 100)
    assert found.counts["number"].value > 40
    # Displaced, the kind still holds 60 % of every latent's mass: nothing of the count is evidence.
    assert found.null["number"].mean() > 38
    assert found.null["entity"].max() == 0


def test_firings_by_document_feed_drift(tmp_path):
    codes, text, _ = planted(tmp_path)
    firings = firings_of(codes, text)
    counted = text.counted
    assert firings.n_tokens == counted.sum()
    dense = np.zeros((len(counted), codes.n_latents))
    for block in codes.blocks():
        dense[block.row, block.latent + block.first] = block.value
    assert (firings.counts == (dense[counted] > 0).sum(0)).all()
    drift = drift_from(firings, firings)
    assert drift["js_divergence"]["value"] == pytest.approx(0)
