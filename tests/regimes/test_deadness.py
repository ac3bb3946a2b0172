"""Silent latents on few and on all training tokens, from planted rows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atlas.errors import EvaluationError
from atlas.regimes.deadness import firings_on
from atlas.training.sae import Sae

# One latent per direction: latent i fires where entry i of a row is above 0.
SAE = Sae("relu", torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4))


def shard(rows: torch.Tensor, counted: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        path=Path("activations/chat/train-000.h5"),
        n_rows=len(rows),
        counted=np.ones(len(rows), bool) if counted is None else counted,
        read_rows=lambda hook, start, stop: rows[start:stop],
    )


def planted(n_rows: int) -> torch.Tensor:
    """Latent 0 fires always, 1 on one row of four, 2 on one row in all, 3 never."""
    rows = -torch.ones(n_rows, 4)
    rows[:, 0] = 1
    rows[::4, 1] = 1
    rows[n_rows // 2, 2] = 1
    return rows


def test_all_rows_are_counted_once():
    every = firings_on(SAE, [shard(planted(400)), shard(planted(800))], "resid_post.0", [])
    assert len(every) == 1 and every[0].n_rows == 1200
    assert every[0].counts.tolist() == [1200, 300, 2, 0]


def test_few_rows_are_random_ones_of_all():
    few, more, every = firings_on(SAE, [shard(planted(20_000))], "resid_post.0", [1000, 5000])
    assert [each.n_rows for each in (few, more, every)] == [1000, 5000, 20_000]
    assert few.counts[0] == 1000 and every.counts[2] == 1
    # 250 expected, standard deviation 13; the first 1,000 rows of a text sorted by anything else would not do.
    assert abs(int(few.counts[1]) - 250) < 70
    assert (few.counts <= more.counts).all() and (more.counts <= every.counts).all()


def test_a_text_in_order_is_drawn_from_all_over():
    rows = -torch.ones(10_000, 4)
    rows[:100, 0] = 1
    few, every = firings_on(SAE, [shard(rows)], "resid_post.0", [1000])
    assert every.counts[0] == 100 and few.counts[0] < 40


def test_rows_that_do_not_count_are_left_out():
    counted = np.arange(400) % 4 != 0
    (every,) = firings_on(SAE, [shard(planted(400), counted)], "resid_post.0", [])
    assert every.n_rows == 300 and every.counts.tolist() == [300, 0, 0, 0]


def test_more_tokens_than_there_are_names_the_remedy():
    with pytest.raises(EvaluationError, match="asks for 400 training tokens, there are 400; lower it"):
        firings_on(SAE, [shard(planted(400))], "resid_post.0", [10, 400])
