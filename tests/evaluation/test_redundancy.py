"""Dictionaries with planted copies, beside random ones."""

import pytest
import torch

from atlas.evaluation import redundancy
from atlas.evaluation.redundancy import (
    Nulls,
    PairFirings,
    decoder_geometry,
    effective_directions,
    random_pairs,
    redundancy_metrics,
)

CPU = torch.device("cpu")


def dictionary(n_latents: int, d_model: int, seed: int = 99) -> torch.Tensor:
    return torch.randn(n_latents, d_model, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("d_model", "published"), [(4096, 0.055), (768, 0.125), (512, 0.152), (256, 0.216)])
def test_null_of_random_dictionaries(d_model, published):
    """Each pair counted twice, as in the open script; counting it once gives .051, .119, .146, .206."""
    mean, sd = Nulls(8, CPU).of(400, d_model)["absorption_guide"]
    assert mean == pytest.approx(published, abs=0.003)
    assert 0 < sd < 0.01


def test_planted_duplicates():
    W_dec = dictionary(200, 64)
    W_dec[100:150] = W_dec[:50] * 3  # copies at another scale
    geometry = decoder_geometry(W_dec)
    assert geometry.values["absorption_guide"] == pytest.approx(1, abs=1e-5)
    assert geometry.values["share_max_cosine_above_09"] == pytest.approx(0.5)
    assert geometry.values["share_max_cosine_above_07"] == pytest.approx(0.5)
    pairs = set(map(tuple, geometry.pairs.T.tolist()))
    assert {(i, i + 100) for i in range(50)} <= pairs
    result, reasons = redundancy_metrics(geometry, W_dec.T, W_dec, Nulls(8, CPU))
    assert result["absorption_guide"]["z"] > 20
    assert result["effective_directions"]["z"] < -5
    assert result["encoder_decoder_cosine"] == pytest.approx(1, abs=1e-6)
    assert "redundancy_absorption_guide_z" not in reasons


def test_random_dictionary_has_no_z():
    W_dec = dictionary(200, 64)
    result, _ = redundancy_metrics(decoder_geometry(W_dec), dictionary(64, 200, 5), W_dec, Nulls(16, CPU))
    for name in ("absorption_guide", "mean_max_cosine", "effective_directions"):
        assert abs(result[name]["z"]) < 4
    assert abs(result["encoder_decoder_cosine"]) < 0.05


def test_orthogonal_dictionary():
    values = decoder_geometry(torch.eye(20, 32)).values
    assert values["absorption_guide"] == 0
    assert values["effective_directions"] == pytest.approx(20)


def test_effective_directions_of_either_shape():
    assert effective_directions(torch.eye(8).repeat(4, 1)) == pytest.approx(8)
    assert effective_directions(torch.ones(5, 9) / 3) == pytest.approx(1)


def test_invariant_to_order_scale_and_rotation():
    W_dec = dictionary(120, 32)
    rotation = torch.linalg.qr(dictionary(32, 32, 3)).Q
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    expected = decoder_geometry(W_dec)
    for other in (W_dec[order], W_dec * torch.linspace(0.1, 9, 120)[:, None], W_dec @ rotation):
        found = decoder_geometry(other)
        assert found.n_pairs == expected.n_pairs
        for name, value in found.values.items():
            assert value == pytest.approx(expected.values[name], rel=1e-4)


def test_chunks_are_immaterial(monkeypatch):
    W_dec = dictionary(150, 24)
    whole = decoder_geometry(W_dec)
    monkeypatch.setattr(redundancy, "_CHUNK_ELEMENTS", 150 * 7)
    parts = decoder_geometry(W_dec)
    assert parts.values == pytest.approx(whole.values, rel=1e-6)
    assert set(map(tuple, parts.pairs.T.tolist())) == set(map(tuple, whole.pairs.T.tolist()))
    assert parts.n_pairs == whole.n_pairs > 0


@pytest.mark.parametrize("n_latents", [2, 3, 7, 30])
def test_small_dictionaries_against_all_cosines(monkeypatch, n_latents):
    """The guide's measure counts each pair twice, the last one perhaps once; maxima are over all other rows."""
    monkeypatch.setattr(redundancy, "GUIDE_PAIRS", 7)
    monkeypatch.setattr(redundancy, "_CHUNK_ELEMENTS", 2 * n_latents)
    W_dec = dictionary(n_latents, 5).double()
    unit = torch.nn.functional.normalize(W_dec, dim=1)
    cosines = unit @ unit.T
    off = ~torch.eye(n_latents, dtype=torch.bool)
    values = decoder_geometry(W_dec).values
    largest = cosines[off].topk(min(7, n_latents)).values
    assert values["absorption_guide"] == pytest.approx(largest.mean().item(), abs=1e-6)
    maxima = cosines.masked_fill(~off, -2).amax(1)
    assert values["mean_max_cosine"] == pytest.approx(maxima.mean().item(), abs=1e-6)


def test_collapsed_dictionary_keeps_a_bounded_number_of_pairs(monkeypatch):
    monkeypatch.setattr(redundancy, "MAX_PAIRS", 50)
    geometry = decoder_geometry(torch.ones(60, 8) + 0.01 * dictionary(60, 8))
    assert geometry.n_pairs == 60 * 59 // 2
    assert geometry.pairs.shape == (2, 50)


def test_row_of_zeros_is_no_neighbour():
    W_dec = dictionary(40, 64)
    W_dec[:2] = 0
    assert decoder_geometry(W_dec).values["share_max_cosine_above_07"] == 0


def test_jaccard_of_planted_firings():
    fired = torch.zeros(100, 4, dtype=torch.bool)
    fired[:50, 0] = True
    fired[25:75, 1] = True  # 25 of 75 with latent 0
    fired[:50, 2] = True  # always with latent 0
    both = PairFirings(torch.tensor([[0, 0], [1, 2]]))
    for start in range(0, 100, 30):
        both.update(fired[start : start + 30])
    assert both.jaccard() == pytest.approx((25 / 75 + 1) / 2)
    silent = PairFirings(torch.tensor([[3], [3]]))
    silent.update(fired)
    assert silent.jaccard() is None
    none = PairFirings(torch.empty(2, 0, dtype=torch.int64))
    none.update(fired)
    assert none.jaccard() is None


def test_random_pairs_join_different_latents():
    first, second = random_pairs(7, 5000, CPU)
    assert bool((first != second).all())
    assert set(first.tolist()) == set(second.tolist()) == set(range(7))


def test_null_is_computed_once_per_shape(monkeypatch):
    calls = []
    real = redundancy.decoder_geometry
    monkeypatch.setattr(redundancy, "decoder_geometry", lambda W: calls.append(1) or real(W))
    nulls = Nulls(8, CPU)
    assert nulls.of(20, 8) == nulls.of(20, 8)
    assert len(calls) == 8


def test_z_without_spread_is_null_with_reason():
    W_dec = torch.eye(16, 512)
    result, reasons = redundancy_metrics(decoder_geometry(W_dec), W_dec.T, W_dec, Nulls(8, CPU))
    assert result["share_max_cosine_above_09"]["z"] is None
    assert "all 8 random dictionaries score 0" in reasons["redundancy_share_max_cosine_above_09_z"]
