"""Planted dictionaries: copies are wholly shared, independent ones are their null, shares are recovered."""

import dataclasses

import numpy as np
import pytest
import torch

from atlas.stability.measures import (
    COPY_COSINE,
    MEASURES,
    Directions,
    Likeness,
    ceiling,
    isotropic_nulls,
    spectrum_nulls,
)

EXACT = 10_000


def random_directions(n: int, d: int, seed: int) -> Directions:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Directions.of(rows.T, rows)


def permuted(directions: Directions, seed: int = 0) -> Directions:
    order = torch.randperm(len(directions), generator=torch.Generator().manual_seed(seed))
    return Directions(directions.encoder[order], directions.decoder[order])


@pytest.mark.parametrize("limit", [EXACT, 1])
def test_permuted_copy_scores_one_everywhere(limit):
    first = random_directions(200, 16, 0)
    likeness = Likeness.between(first, permuted(first), limit)
    assert likeness.method == ("exact" if limit == EXACT else "greedy")
    assert likeness.values() == pytest.approx(dict.fromkeys(MEASURES, 1.0), abs=1e-6)


def test_independent_dictionaries_are_their_null():
    """z of ten independent pairs: |mean| well below 1, none beyond 4."""
    z = []
    for seed in range(10):
        first, second = random_directions(150, 12, 2 * seed), random_directions(150, 12, 2 * seed + 1)
        value = Likeness.between(first, second, EXACT).values()["pw_mcc"]
        draws = np.array([draw["pw_mcc"] for draw in isotropic_nulls(first, second, 12, EXACT)])
        z.append((value - draws.mean()) / draws.std(ddof=1))
    assert np.abs(z).max() < 4.5
    assert abs(np.mean(z)) < 1.5


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_planted_share_is_recovered(share):
    first, second = random_directions(200, 64, 0), random_directions(200, 64, 1)
    kept = torch.arange(200)[:, None] < share * 200
    second = Directions(
        *(torch.where(kept, a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    )
    values = Likeness.between(first, permuted(second), EXACT).values()
    for name in ("shared_decoder", "shared_encoder", "shared"):
        assert values[name] == pytest.approx(share)


def test_sharing_needs_one_partner_under_both_matchings():
    """Decoders are a copy, encoders are that copy cyclically shifted: each matching is perfect, they disagree."""
    first = random_directions(100, 32, 0)
    second = dataclasses.replace(first, encoder=first.encoder.roll(1, 0))
    values = Likeness.between(first, second, EXACT).values()
    assert values["shared_decoder"] == values["shared_encoder"] == 1
    assert values["shared"] == 0


def test_cosines_have_a_sign():
    first = random_directions(100, 32, 0)
    values = Likeness.between(first, Directions(-first.encoder, -first.decoder), EXACT).values()
    assert values["shared_decoder"] == 0
    assert values["pw_mcc"] < 0.6


def test_norms_do_not_matter():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.arange(1, 51)[:, None].float()
    plain, scaled = Directions.of(rows.T, rows), Directions.of((rows * scale).T, rows / scale)
    assert Likeness.between(plain, scaled, EXACT).values()["shared"] == 1


def test_latents_without_a_partner_are_not_shared():
    first = random_directions(100, 16, 0)
    likeness = Likeness.between(first, first.only(np.arange(100) < 40), EXACT)
    values = likeness.values()
    assert (likeness.partner[40:] == -1).all()
    assert values["shared"] == pytest.approx(0.4)
    assert values["pw_mcc"] == pytest.approx(1)  # of those that have a partner
    assert 0.4 < values["mmcs"] < 1


def test_spectrum_null_explains_a_shared_subspace():
    """Two independent dictionaries in the same 4 of 64 dimensions: far above isotropic ones, at the spectrum's null."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 4, generator=generator))[0]
    rows = [torch.randn(80, 4, generator=generator) @ basis.T for _ in range(2)]
    first, second = (Directions.of(part.T, part) for part in rows)
    value = Likeness.between(first, second, EXACT).values()["pw_mcc"]
    isotropic = np.array([draw["pw_mcc"] for draw in isotropic_nulls(first, second, 8, EXACT)])
    spectrum = np.array([draw["pw_mcc"] for draw in spectrum_nulls(first, second, 8, EXACT)])
    assert value > isotropic.mean() + 20 * isotropic.std(ddof=1)
    assert abs(value - spectrum.mean()) < 5 * spectrum.std(ddof=1)


def test_widths_of_a_transcoder_may_differ():
    generator = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(8, 50, generator=generator), torch.randn(50, 12, generator=generator)
    first = Directions.of(W_enc, W_dec)
    assert Likeness.between(first, permuted(first), EXACT).values()["shared"] == 1
    for nulls in (isotropic_nulls, spectrum_nulls):
        draws = nulls(first, first, 3, EXACT)
        assert len({draw["pw_mcc"] for draw in draws}) == 3
        assert max(draw["shared"] for draw in draws) < 0.3


def test_the_ceiling_is_what_two_dictionaries_score_that_found_the_same_directions():
    first = random_directions(60, 400, 0)
    found = ceiling(first, first, EXACT)
    assert found["shared"] == found["shared_decoder"] == found["shared_encoder"] == 1
    # Errors are independent, of chance cosines of about 1 / 20.
    assert found["pw_mcc"] == pytest.approx(COPY_COSINE**2, abs=0.02)
    assert found["mmcs"] == pytest.approx(COPY_COSINE**2, abs=0.02)
    assert found == ceiling(first, permuted(first), EXACT)


def test_the_ceiling_of_directions_that_are_all_alike_is_low():
    """Copies of one direction have no partner of their own: not even a perfect dictionary comes back."""
    rows = torch.ones(100, 64) + 0.01 * torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    alike = Directions.of(rows.T, rows)
    assert ceiling(alike, alike, EXACT)["shared"] < 0.2


def test_of_unequal_sizes_the_larger_holds_random_directions_besides():
    first, second = random_directions(100, 200, 0), random_directions(40, 200, 1)
    assert ceiling(first, second, EXACT)["shared"] == pytest.approx(0.4)
    assert ceiling(second, first, EXACT)["shared"] == 1
