"""Batches of a transcoder: both hooks of the same tokens."""

import numpy as np
import pytest
import torch
from activations.shards import make_shard

from atlas.activations.blocks import eligible_rows
from atlas.activations.sampling import sample_tokens
from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.config.mixes import Mix

PAIR = "resid_post.0-to-resid_post.1"
MIX = Mix(phases=[{"until": 1.0, "weights": {"chat": 0.5, "finance": 0.5}}])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(2):
        make_shard(folder / f"chat{number}.h5", seed=number, n_shards=2, shard=number)
    make_shard(folder / "finance.h5", seed=9, corpus="finance", corpus_fingerprint="g", n_contexts=60)
    return {
        "chat": open_shards([folder / "chat0.h5", folder / "chat1.h5"]),
        "finance": open_shards([folder / "finance.h5"]),
    }


@pytest.fixture(scope="module")
def partner(shards) -> dict[tuple, tuple]:
    """For every source row of the store, the row of the same token at the target."""
    pairs = {}
    for shard in (shard for group in shards.values() for shard in group):
        rows = [shard.read_rows(hook, 0, shard.n_rows).float().tolist() for hook in shard.hooks]
        pairs |= {tuple(source): tuple(target) for source, target in zip(*rows, strict=True)}
    return pairs


def stream(shards, hook=PAIR, seed=0, **options):
    return BatchStream(shards, hook, MIX, seed, batch_size=128, steps=60, **options)


def test_row_and_target_are_the_same_token(shards, partner):
    s = stream(shards)
    assert (s.d_model, s.d_target) == (16, 24)
    for step in range(60):  # several epochs, so that blocks wrap around too
        batch = s.batch(step)
        assert batch.targets.shape == (128, 24)
        for row, target in zip(batch.rows.float().tolist(), batch.targets.float().tolist(), strict=True):
            assert partner[tuple(row)] == tuple(target)


def test_pairs_draw_the_same_rows_as_an_sae_of_the_source(shards):
    """Massive rows of this store are massive at every hook, so the plan of indices is the same."""
    alone, pairs = stream(shards, "resid_post.0"), stream(shards)
    assert alone.batch(7).targets is None
    assert torch.equal(alone.batch(7).rows, pairs.batch(7).rows)
    assert alone.identity != pairs.identity
    assert pairs.statistics().mean_square_norm == alone.statistics().mean_square_norm
    assert pairs.target_statistics().mean_square_norm == stream(shards, "resid_post.1").statistics().mean_square_norm


def test_a_row_that_is_massive_at_either_hook_is_left_out(shards):
    shard = shards["chat"][0]
    counted = np.flatnonzero(shard.counted)
    norms = shard.norms("resid_post.1")
    limit = float(np.median(norms))
    rows = eligible_rows(shard, {"resid_post.0": np.inf, "resid_post.1": limit})
    assert list(rows) == [row for row in counted if norms[row] <= limit]
    assert 0 < len(rows) < len(counted)
    drawn = torch.cat([stream(shards).batch(step).targets for step in range(20)]).float().norm(dim=1)
    assert drawn.max() < 100 < torch.from_numpy(norms).max()


def test_sampled_tokens_belong_together_and_are_within_both_limits(shards, partner):
    rows = sample_tokens(shards["chat"], {"resid_post.0": 50.0, "resid_post.1": 60.0}, 100)
    assert len(rows["resid_post.0"]) == len(rows["resid_post.1"]) == 100
    for row, target in zip(rows["resid_post.0"].float().tolist(), rows["resid_post.1"].float().tolist(), strict=True):
        assert partner[tuple(row)] == tuple(target)
    assert rows["resid_post.1"].float().norm(dim=1).max() <= 60
