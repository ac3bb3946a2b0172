"""What fires here and there on the same tokens, from planted rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atlas.training.sae import Sae
from atlas.transfer.usage import Side, TokenByToken, firings, same_tokens

SAE = Sae("relu", torch.eye(6), torch.zeros(6), torch.eye(6), torch.zeros(6))
N = 600


def side(rows: torch.Tensor, tokens: np.ndarray | None = None, sae: Sae = SAE) -> Side:
    shard = SimpleNamespace(
        n_rows=len(rows),
        counted=np.arange(len(rows)) % 10 != 0,
        document=np.repeat(np.arange(len(rows) // 20), 20),
        tokens=np.arange(len(rows)) if tokens is None else tokens,
        read_rows=lambda hook, start, stop: rows[start:stop],
    )
    return Side(sae, [shard], "resid_post.1")


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(0))


def test_an_sae_agrees_with_itself_and_not_with_other_tokens(rows):
    tokens = TokenByToken(side(rows), side(rows))
    assert tokens.turnover() == 0 and tokens.turnover_interval() == [0, 0]
    np.testing.assert_allclose(tokens.correlation(), 1, atol=1e-12)
    # Half of six latents fire on a token: of two independent tokens about two thirds of those that fire differ.
    assert 0.55 < tokens.turnover("displaced") < 0.75
    assert np.abs(tokens.correlation("displaced")).max() < 0.2


def test_latents_that_change_places_are_noticed(rows):
    away = rows.clone()
    away[:, [0, 1]] = rows[:, [1, 0]]
    tokens = TokenByToken(side(rows), side(away))
    correlation = tokens.correlation()
    assert np.abs(correlation[:2]).max() < 0.2 and np.allclose(correlation[2:], 1)
    assert 0 < tokens.turnover() < tokens.turnover("displaced")
    assert (firings(side(rows)).counts[[0, 1]] == firings(side(away)).counts[[1, 0]]).all()


def test_correlation_is_numpys_and_nan_for_a_silent_latent(rows):
    away = rows + 0.5 * torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
    away[:, 5] = -1
    counted = side(rows).shards[0].counted
    ours, theirs = (SAE.encode(x[torch.from_numpy(counted)]).double().numpy() for x in (rows, away))
    expected = [np.corrcoef(ours[:, i], theirs[:, i])[0, 1] for i in range(5)]
    found = TokenByToken(side(rows), side(away)).correlation()
    np.testing.assert_allclose(found[:5], expected, rtol=1e-6)
    assert np.isnan(found[5])


def test_only_counted_rows_fire(rows):
    found = firings(side(torch.ones(N, 6)))
    assert found.n_tokens == 540 and (found.counts == 540).all() and len(found.tokens) == 30


def test_other_tokens_are_noticed(rows):
    assert same_tokens(side(rows), side(-rows))
    assert not same_tokens(side(rows), side(rows, np.arange(N)[::-1]))
    assert not same_tokens(side(rows), side(rows[:300]))
