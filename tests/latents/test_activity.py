"""Planted latents: one per class of token, one at first positions, one on a single word, one at random."""

import numpy as np
import pytest
from latent_scene import LENGTH, TABLE, TEXTS, random_firings, random_tokens, text_of, write_codes

from atlas.latents.activity import formatting_artefact, measure_activity
from atlas.latents.contexts import top_contexts
from atlas.latents.token_classes import CLASSES

NEWLINE, DIGIT, FIRST, WORD, RANDOM, SILENT = range(6)


@pytest.fixture
def planted(tmp_path):
    tokens = random_tokens(100)
    first = np.arange(len(tokens)) % LENGTH == 1  # position 0 is special, and not counted
    dense = np.zeros((len(tokens), 6))
    dense[:, NEWLINE] = 2.0 * (tokens == 1)
    dense[:, DIGIT] = 1.0 * (tokens == 3)
    dense[:, FIRST] = 3.0 * first
    dense[:, WORD] = 1.0 * (tokens == TEXTS.index("gamma"))
    dense[:, RANDOM] = random_firings(tokens, [0.2])[:, 0]
    dense[tokens == 0] = 9  # what is not counted must not matter
    codes = write_codes(tmp_path / "c.h5", dense, tokens)
    return codes, text_of(codes), tokens, dense


def test_masses_and_counts_are_those_planted(planted):
    codes, text, tokens, dense = planted
    found = measure_activity(codes, text, 100)
    shares = found.class_mass / np.maximum(found.mass, 1)[:, None]
    for latent, name in ((NEWLINE, "newline"), (DIGIT, "digit"), (WORD, "word")):
        assert shares[latent].tolist() == [float(each == name) for each in CLASSES]
    counted = tokens != 0
    assert found.n_firings.tolist() == (dense[counted] > 0).sum(0).tolist()
    np.testing.assert_allclose(found.mass, dense[counted].sum(0), rtol=1e-6)
    assert found.n_firings[SILENT] == 0 and found.top_token[SILENT] == -1
    assert [TABLE.texts[found.top_token[latent]] for latent in (NEWLINE, DIGIT, WORD)] == ["\n", "7", "gamma"]
    assert found.top_token_mass[WORD] == found.mass[WORD]
    assert found.first_mass[FIRST] == found.mass[FIRST]
    assert found.first_firings[FIRST] == 100
    assert (found.by_group.sum(1) == found.n_firings).all()


def test_base_rates(planted):
    _, text, tokens, _ = planted
    counted = tokens[tokens != 0]
    assert text.base_rates["digit"] == pytest.approx((counted == 3).mean())
    assert text.base_rates["word"] == pytest.approx((counted >= 6).mean())
    assert text.base_rates["first"] == pytest.approx(1 / (LENGTH - 1))
    assert text.base_rates["special"] == 0


def test_artefacts_are_latents_of_form_and_of_place():
    n, first = np.array([50, 50, 50, 9, 50]), np.array([0, 3, 2, 9, 0])
    nonword, lift = np.array([0.9, 0.1, 0.1, 1.0, 0.8]), np.array([1.0, 11.0, 11.0, 19.0, 10.0])
    assert np.array_equal(formatting_artefact(n, first, nonword, lift), [1, 1, 0, np.nan, 0], equal_nan=True)


def test_intervals_hold_the_truth_of_a_random_latent(tmp_path):
    """Latents without preference: the mean mass of words is the share of words, in the interval."""
    tokens = random_tokens(400, seed=3)
    codes = write_codes(tmp_path / "c.h5", random_firings(tokens, [0.3] * 8), tokens)
    text = text_of(codes)
    found = measure_activity(codes, text, 200)
    low, high = found.intervals["mass_word"]
    assert low < text.base_rates["word"] < high
    assert high - low < 0.1
    assert found.intervals["artefact_share"] == [0, 0]
    assert found.intervals["dense_share"] == [1, 1]
    assert found.intervals["massive_share"] == [0, 0]


def test_the_interval_of_the_dense_share_knows_latents_at_the_limit(tmp_path):
    """Two clear latents, and one whose rate lies at the limit of 10 %: dense in about half of the draws."""
    tokens = random_tokens(400, seed=4)
    codes = write_codes(tmp_path / "c.h5", random_firings(tokens, [0.3, 0.01, 0.1]), tokens)
    low, high = measure_activity(codes, text_of(codes), 200).intervals["dense_share"]
    assert 0 <= low < 1 / 3 and 2 / 3 < high <= 1


def test_one_document_has_no_interval(tmp_path):
    tokens = random_tokens(4)
    codes = write_codes(tmp_path / "c.h5", random_firings(tokens, [0.5]), tokens, contexts_per_document=4)
    assert set(measure_activity(codes, text_of(codes), 100).intervals.values()) == {None}


def test_permuting_latents_permutes_rows_and_blocks_are_immaterial(planted, tmp_path, monkeypatch):
    codes, text, tokens, dense = planted
    order = np.array([3, 0, 5, 1, 4, 2])
    other = write_codes(tmp_path / "other.h5", dense[:, order], tokens, block_rows=37)
    whole, found = measure_activity(codes, text, 100), measure_activity(other, text_of(other), 100)
    for name in ("n_firings", "mass", "class_mass", "first_mass", "top_token", "top_token_mass", "by_group", "largest"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)[order]), name
    for name, interval in whole.intervals.items():
        assert found.intervals[name] == pytest.approx(interval)
    blocks = type(codes).blocks
    monkeypatch.setattr(type(codes), "blocks", lambda self: blocks(self, max_latents=1))
    single = measure_activity(codes, text, 100)
    assert np.array_equal(single.class_mass, whole.class_mass)
    assert single.intervals["artefact_share"] == pytest.approx(whole.intervals["artefact_share"])


def test_top_contexts_are_the_strongest_of_each_document(planted):
    codes, text, tokens, dense = planted
    top = top_contexts(codes, text, 10)
    counted = tokens != 0
    for latent in (WORD, RANDOM, SILENT):
        rows = np.flatnonzero(counted & (dense[:, latent] > 0))
        expected = {}
        for row in sorted(rows, key=lambda row: (-np.float32(dense[row, latent]), row)):
            expected.setdefault(text.document[row], row)
        found = top.row[latent][top.row[latent] >= 0].tolist()
        assert found == list(expected.values())[:10]
    assert top.n_contexts[SILENT] == 0
    assert (top.row[SILENT] == -1).all()


def test_top_contexts_leave_massive_activations_out(tmp_path):
    tokens = np.full(12 * LENGTH, 6)
    dense, massive = np.zeros((len(tokens), 2)), np.arange(len(tokens)) % LENGTH == 0
    dense[massive] = 1000  # as an SAE with a threshold answers rows that it never learnt
    dense[3::LENGTH, 0] = 1
    codes = write_codes(tmp_path / "c.h5", dense, tokens, massive=massive)
    top = top_contexts(codes, text_of(codes), 4)
    assert set(top.row[0] % LENGTH) == {3} and set(top.value[0]) == {1}
    assert top.n_contexts.tolist() == [4, 0]


def test_first_position_is_the_first_counted_one(tmp_path):
    tokens = np.full(2 * LENGTH, 6)
    tokens[: LENGTH // 2] = 0
    codes = write_codes(tmp_path / "c.h5", np.ones((len(tokens), 1)), tokens)
    assert np.flatnonzero(text_of(codes).first).tolist() == [LENGTH // 2, LENGTH]
