"""Planted reconstructions in, known numbers out."""

import numpy as np
import pytest
import torch

from atlas.errors import EvaluationError
from atlas.evaluation.reconstruction import ReconstructionSums
from atlas.statistics.clusters import MAX_GROUPS, Groups


def measured(rows, reconstruction, center=None, groups=None, batch=64, n_groups=1) -> dict:
    return sums(rows, reconstruction, center, groups, batch, n_groups).metrics()


def sums(rows, reconstruction, center=None, groups=None, batch=64, n_groups=1) -> ReconstructionSums:
    groups = torch.zeros(len(rows), dtype=torch.int64) if groups is None else groups
    result = ReconstructionSums.start(torch.zeros(rows.shape[1]) if center is None else center, n_groups)
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        result.update(rows[part], reconstruction[part], groups[part])
    return result


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(1000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3


def test_mean_predictor_explains_exactly_nothing(rows):
    mean = rows.mean(0).expand_as(rows)
    assert abs(measured(rows, mean)["explained_variance"]) < 1e-12
    far = rows * torch.linspace(0.1, 50, 12, dtype=torch.float64) + 400
    values = measured(far, far.mean(0).expand_as(far), center=far[:100].mean(0))
    assert abs(values["explained_variance"]) < 1e-12
    assert abs(values["fve_centered"]) < 1e-12


def test_perfect_reconstruction(rows):
    values = measured(rows, rows)
    assert values == {
        "fvu": 0.0,
        "explained_variance": 1.0,
        "fve_centered": 1.0,
        "cosine": pytest.approx(1, abs=1e-12),
        "l2_ratio": pytest.approx(1, abs=1e-12),
        "l2_loss": 0.0,
    }


def test_three_quarters_explained_in_unequal_batches():
    """Batches differ in mean: a baseline taken per batch would score both of these wrongly."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(20, 1, 8, generator=generator, dtype=torch.float64) * 5
    rows = (torch.randn(20, 50, 8, generator=generator, dtype=torch.float64) + means).flatten(0, 1)
    x_bar = rows.mean(0)
    half_way = x_bar + 0.5 * (rows - x_bar)
    assert measured(rows, half_way, batch=50)["explained_variance"] == pytest.approx(0.75, abs=1e-12)
    assert abs(measured(rows, x_bar.expand_as(rows), batch=50)["explained_variance"]) < 1e-12


@pytest.mark.parametrize("batch", [1, 7, 128, 1000])
def test_batch_split_is_immaterial(rows, batch):
    noisy = rows + 0.3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = measured(rows, noisy, batch=64)
    for name, value in measured(rows, noisy, batch=batch).items():
        assert value == pytest.approx(expected[name], rel=1e-12)


def test_invariant_to_rotation_scale_shift_and_order(rows):
    generator = torch.Generator().manual_seed(3)
    noisy = rows + torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(len(rows), generator=generator)
    expected = measured(rows, noisy)
    for x, y in ((rows @ rotation, noisy @ rotation), (rows * 37, noisy * 37), (rows[order], noisy[order])):
        values = measured(x, y)
        for name in ("fvu", "explained_variance", "fve_centered", "cosine", "l2_ratio"):
            assert values[name] == pytest.approx(expected[name], rel=1e-10)
    shifted = measured(rows + 9, noisy + 9)
    assert shifted["fvu"] == pytest.approx(expected["fvu"], rel=1e-10)


def test_constant_offset_costs_explained_variance_and_is_free_when_centred(rows):
    values = measured(rows, rows + 2)
    assert values["fve_centered"] == pytest.approx(1, abs=1e-12)
    variance = (rows - rows.mean(0)).square().sum().item()
    assert values["fvu"] == pytest.approx(1000 * 12 * 4 / variance, rel=1e-12)
    assert values["l2_loss"] == pytest.approx(np.sqrt(12 * 4), rel=1e-12)


def test_cosine_and_ratio_of_known_rows():
    rows = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    other = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 0.0]])
    values = measured(rows, other)
    assert values["cosine"] == pytest.approx((0 + 1 + 0) / 3)
    assert values["l2_ratio"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_massive_rows_lift_explained_variance(rows):
    """One row in a hundred with 100 times the norm, copied well, hides that the rest is not explained at all."""
    centred = rows - 3
    reconstruction = torch.zeros_like(centred)
    massive = torch.arange(len(rows)) % 100 == 0
    centred[massive] *= 100
    reconstruction[massive] = centred[massive]
    both = sums(centred[massive], reconstruction[massive]) + sums(centred[~massive], reconstruction[~massive])
    assert both.metrics()["explained_variance"] > 0.98
    assert measured(centred[~massive], reconstruction[~massive])["explained_variance"] < 0.01
    assert both.metrics()["fvu"] == pytest.approx(measured(centred, reconstruction)["fvu"], rel=1e-12)


def test_rows_that_do_not_vary_have_no_share():
    values = measured(torch.full((10, 3), 0.1), torch.zeros(10, 3))
    assert values["fvu"] is None
    assert values["explained_variance"] is None
    assert values["l2_loss"] == pytest.approx(0.1 * np.sqrt(3))
    assert set(sums(torch.ones(0, 3), torch.ones(0, 3)).metrics().values()) == {None}


def test_sums_of_different_centers_are_refused(rows):
    with pytest.raises(EvaluationError, match="same center"):
        sums(rows, rows) + sums(rows, rows, center=torch.ones(12))


def test_interval_covers_the_truth_and_respects_documents():
    """Errors are shared within a document: an interval over tokens would be many times too narrow."""
    covered, widths = 0, []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        documents = torch.arange(60).repeat_interleave(20)
        rows = torch.randn(1200, 4, generator=generator)
        scale = torch.rand(60, generator=generator)[documents]
        error = torch.randn(1200, 4, generator=generator) * scale[:, None]
        low, high = sums(rows, rows - error, groups=documents, n_groups=60).interval()
        covered += low <= 1 - 1 / 3 <= high  # E[scale²] = 1/3
        widths.append(high - low)
    assert covered >= 33  # 38 expected, below 33 in 1 % of runs
    assert 0.05 < np.mean(widths) < 0.25


def test_interval_needs_four_documents(rows):
    for n_documents, known in ((1, False), (3, False), (4, True)):
        groups = torch.arange(len(rows)) % n_documents
        found = sums(rows, rows * 0.9, groups=groups, n_groups=6)
        assert found.n_clusters == n_documents
        assert (found.interval() is not None) == known


def test_documents_beyond_the_limit_share_groups():
    groups = Groups.of(np.array([5, -1, 5, 9]))
    assert groups.count == 3
    assert groups.index(np.array([-1, 9, 5])).tolist() == [0, 2, 1]
    many = Groups.of(np.arange(3 * MAX_GROUPS))
    assert many.count == MAX_GROUPS
    assert np.bincount(many.index(np.arange(3 * MAX_GROUPS))).tolist() == [3] * MAX_GROUPS
