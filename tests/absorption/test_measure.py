"""Absorption of single words: equal to SAEBench's, and right where its definition can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from atlas.absorption.measure import word_absorption

SAEBENCH = np.load(Path(__file__).parent / "saebench_rows.npz")


@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_words_equal_saebench(case):
    given = {name: SAEBENCH[f"{case}.{name}"] for name in ("rows", "latents", "W_dec", "probe", "main")}
    found = word_absorption(**given)
    np.testing.assert_allclose(found.fraction, SAEBENCH[f"{case}.fraction"], atol=1e-5)
    np.testing.assert_array_equal(found.full, SAEBENCH[f"{case}.full"])


def test_the_words_of_saebench_take_every_branch():
    fraction = np.concatenate([SAEBENCH[f"{case}.fraction"] for case in "012"])
    full = np.concatenate([SAEBENCH[f"{case}.full"] for case in "012"])
    assert (fraction == 0).sum() > 10
    assert (fraction == 1).sum() > 10
    assert ((fraction > 0) & (fraction < 1)).sum() > 10
    assert 10 < full.sum() < len(full) - 10


def word(main: float, others: dict[int, float], total: float = 10.0):
    """One word: the probe is axis 0; latent 0 is its main latent, 1 to 4 lean on it by half, 5 is orthogonal."""
    lean = np.sqrt(0.75)
    W_dec = np.array([[1, 0], *[[0.5, lean]] * 4, [0, 1]], dtype=np.float32)
    latents = np.zeros((1, 6), np.float32)
    latents[0, 0] = main
    for place, value in others.items():
        latents[0, place] = value
    rows = np.array([[total, 0]], np.float32)
    found = word_absorption(rows, latents, W_dec, np.array([3.0, 0.0], np.float32), np.array([0]))
    return float(found.fraction[0]), bool(found.full[0])


@pytest.mark.parametrize(
    ("main", "others", "expected"),
    [
        (10, {}, (0, False)),  # nothing is missing
        (10, {1: 20}, (0, False)),  # nothing is missing, whatever else fires
        (0, {1: 20}, (1, True)),  # another supplies 10 of 10, alone
        (0, {1: 7}, (0, False)),  # 3.5 of 10 is too little
        (0, {1: 8}, (1, True)),  # 4 of 10 is just enough
        (5, {1: 10}, (0.5, False)),  # 5 of what 5 and 5 supply
        (8, {1: 10}, (0.2, False)),  # 5 are offered, 2 are missing: 2 of 10
        (0, {1: 6, 2: 6}, (1, False)),  # two together absorb, neither does alone
        (0, {1: 2, 2: 2, 3: 2, 4: 2}, (0, False)),  # only three count: 3 of 10
        (0, {5: 100}, (0, False)),  # what is orthogonal supplies nothing
    ],
)
def test_words_worked_out_by_hand(main, others, expected):
    assert word(main, others) == pytest.approx(expected)


def test_word_without_the_letter_is_not_absorbed():
    assert word(0, {1: 20}, total=-5.0) == (0, False)
    assert word(0, {1: 20}, total=0.0) == (0, False)


def test_lengths_of_decoder_rows_are_part_of_what_they_supply():
    given = {name: SAEBENCH[f"0.{name}"] for name in ("rows", "latents", "W_dec", "probe", "main")}
    scale = np.linspace(0.5, 3, given["W_dec"].shape[0], dtype=np.float32)
    scaled = given | {"W_dec": given["W_dec"] * scale[:, None], "latents": given["latents"] / scale}
    np.testing.assert_allclose(word_absorption(**scaled).fraction, SAEBENCH["0.fraction"], atol=1e-5)
