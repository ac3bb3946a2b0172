"""Every row is near the middle of its window, and a window stays in one context of one document."""

import numpy as np
import pytest
from latent_scene import FakeTokenizer

from atlas.latents.embedded_windows import EmbeddedWindows, Grid, window_texts

LENGTH, WIDTH = 32, 8


@pytest.fixture
def grid():
    """Six contexts; documents of many lengths, some over the end of a context."""
    document = np.repeat(np.arange(12), [5, 40, 1, 18, 30, 2, 20, 9, 3, 40, 8, 16])
    return document, Grid.of(document, LENGTH, WIDTH)


def test_rows_are_in_their_window_near_its_centre(grid):
    _, found = grid
    for row, window in enumerate(found.window):
        rows = found.rows(window)
        assert rows.start <= row < rows.stop
        assert abs(row - found.centre[window]) <= WIDTH // 2


def test_windows_stay_in_their_context_and_document(grid):
    document, found = grid
    for window in range(len(found.centre)):
        rows = np.arange(len(document))[found.rows(window)]
        assert len(set(document[rows])) == 1
        assert len(set(rows // LENGTH)) == 1


def test_windows_are_as_wide_as_the_text_lets_them(grid):
    document, found = grid
    piece = document * 1000 + np.arange(len(document)) // LENGTH
    for window, centre in enumerate(found.centre):
        near = np.flatnonzero((piece == piece[centre]) & (abs(np.arange(len(piece)) - centre) <= WIDTH))
        assert found.rows(window) == slice(near[0], near[-1] + 1)


def test_there_are_no_more_windows_than_needed():
    assert len(Grid.of(np.zeros(64, int), 64, 8).centre) == 8


def test_text_holds_counted_tokens_only():
    tokens = np.array([0, 6, 7, 0, 8, 9])
    grid = Grid.of(np.zeros(6, int), 6, 6)
    texts = window_texts(grid, tokens, tokens > 0, FakeTokenizer())
    assert texts == [FakeTokenizer().decode([6, 7, 8, 9])]


def test_no_row_is_the_vector_zero():
    windows = EmbeddedWindows(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0, 0, 1]))
    assert windows.of(np.array([[2, -1], [0, 1]])).tolist() == [[[0, 1], [0, 0]], [[1, 0], [1, 0]]]
