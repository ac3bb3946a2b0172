"""Partners: exact ones are the best there are, greedy ones are what sorting all pairs gives."""

import itertools

import numpy as np
import pytest
import torch

from atlas.stability.matching import largest_cosines, match, matching_method


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)


@pytest.mark.parametrize("method", ["exact", "greedy"])
@pytest.mark.parametrize(("n_first", "n_second"), [(50, 50), (50, 30), (30, 50)])
def test_partners_are_one_to_one_and_carry_their_cosine(method, n_first, n_second):
    first, second = unit(n_first, 8, 0), unit(n_second, 8, 1)
    found = match(first, second, method)
    matched = found.partner >= 0
    assert matched.sum() == min(n_first, n_second)
    assert len(set(found.partner[matched])) == matched.sum()
    expected = (first[torch.from_numpy(matched)] * second[found.partner[matched]]).sum(1)
    np.testing.assert_allclose(found.cosine[matched], expected, atol=1e-5)
    assert np.isnan(found.cosine[~matched]).all()


@pytest.mark.parametrize("method", ["exact", "greedy"])
def test_permuted_copy_is_found(method):
    first, order = unit(300, 16, 0), torch.randperm(300, generator=torch.Generator().manual_seed(2))
    found = match(first, first[order], method)
    assert np.array_equal(order[found.partner], np.arange(300))
    np.testing.assert_allclose(found.cosine, 1, atol=1e-5)


def test_exact_is_the_best_of_all_permutations():
    first, second = unit(6, 3, 3), unit(6, 3, 4)
    cosines = (first @ second.T).numpy()
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(6)))
    assert match(first, second, "exact").cosine.sum() == pytest.approx(best, abs=1e-5)


def test_greedy_equals_sorting_all_pairs():
    first, second = unit(40, 4, 5), unit(60, 4, 6)
    cosines = (first @ second.T).numpy()
    expected, taken = np.full(40, -1), set()
    for flat in np.argsort(-cosines, axis=None):
        i, j = divmod(int(flat), 60)
        if expected[i] < 0 and j not in taken:
            expected[i] = j
            taken.add(j)
    found = match(first, second, "greedy")
    assert np.array_equal(found.partner, expected)
    assert found.cosine.sum() < match(first, second, "exact").cosine.sum()


def test_equal_rows_do_not_hang_greedy():
    first = unit(1, 4, 0).repeat(20, 1)
    found = match(first, first, "greedy")
    assert sorted(found.partner) == list(range(20))


def test_method_follows_the_larger_dictionary():
    assert matching_method(100, 100, 100) == "exact"
    assert matching_method(100, 101, 100) == "greedy"


def test_nothing_to_match():
    empty = torch.zeros(0, 4)
    assert len(match(empty, unit(3, 4, 0), "exact").partner) == 0
    assert list(match(unit(3, 4, 0), empty, "greedy").partner) == [-1, -1, -1]


def test_largest_cosine_is_that_of_the_closest_row(monkeypatch):
    first, second = unit(17, 5, 0), unit(11, 5, 1)
    whole = largest_cosines(first, second)
    monkeypatch.setattr("atlas.stability.matching._CHUNK_ELEMENTS", 30)
    chunked = largest_cosines(first, second)
    assert torch.equal(whole[1], chunked[1])
    torch.testing.assert_close(chunked[0], (first @ second.T).amax(1))
