"""Selection against a definition that sorts: largest first, equal values by lowest index."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.training import selection
from atlas.training.selection import select_batch, select_rows, top_indices


def by_sorting(values: torch.Tensor, k: int) -> list[int]:
    order = sorted(range(len(values)), key=lambda i: (-values[i].item(), i))
    return sorted(i for i in order[:k] if values[i] > 0)


# Few distinct values, so that ties abound.
matrices = st.integers(0, 2**31).map(
    lambda seed: torch.randint(-3, 4, (5, 12), generator=torch.Generator().manual_seed(seed)).float()
)


# As wide as the filter by group maxima needs, in groups of 8 with up to 7 latents left over; normal, tied or negative.
wide_matrices = st.tuples(st.integers(0, 2**31), st.integers(64, 300), st.sampled_from(["normal", "tied", "negative"]))


def draw(seed: int, n_latents: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "tied":
        return torch.randint(-6, 7, (5, n_latents), generator=generator).float()
    rows = torch.randn(5, n_latents, generator=generator) * torch.rand(5, 1, generator=generator)
    return rows - 1.5 if kind == "negative" else rows


@settings(max_examples=60, deadline=None)
@given(matrices, st.integers(1, 11))
def test_rows_keep_their_k_largest_and_ties_go_to_the_lowest_index(pre, k):
    expected = [12 * row + i for row in range(5) for i in by_sorting(pre[row], k)]
    assert select_rows(pre, k).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(wide_matrices, st.data())
def test_the_filter_by_group_maxima_is_exact(drawn, data):
    pre = draw(*drawn)
    n_latents = pre.shape[1]
    k = data.draw(st.integers(1, n_latents // selection._FILTER_FROM))
    found = select_rows(pre, k)
    assert (found // n_latents).tolist() == sorted((found // n_latents).tolist())  # row by row
    assert sorted(found.tolist()) == [n_latents * row + i for row in range(5) for i in by_sorting(pre[row], k)]


@settings(max_examples=60, deadline=None)
@given(matrices, st.integers(1, 11), st.booleans())
def test_a_batch_keeps_its_largest_values_whatever_the_guess(pre, k, too_high):
    with pytest.MonkeyPatch.context() as patch:
        if too_high:
            patch.setattr(selection, "floor_of_sample", lambda sample, n, wanted: 2.0)
        assert select_batch(pre, k).tolist() == by_sorting(pre.flatten(), 5 * k)


def test_the_guess_leaves_most_values_out_and_is_exact():
    pre = torch.randn(2**9, 2**12, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    sample = pre.flatten()[:: selection.sample_stride(pre.numel())]
    assert selection.floor_of_sample(sample, pre.numel(), 32 * len(pre)) > 1
    kept = select_batch(pre, 32)
    order = pre.flatten().sort(descending=True, stable=True).indices[: 32 * len(pre)]
    assert torch.equal(kept, order.sort().values)


def test_top_indices_takes_negative_values_too():
    values = torch.tensor([[-3.0, -1.0, -1.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    assert top_indices(values, 1).tolist() == [[1], [0]]
    assert top_indices(values, 3).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert top_indices(values, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_zero_values_are_never_kept():
    pre = torch.tensor([[0.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
    assert select_rows(pre, 2).tolist() == [2]
    assert select_batch(pre, 2).tolist() == [2]
