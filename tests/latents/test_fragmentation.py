"""Latents that were split are found again; independent ones, however dense, are left alone."""

import numpy as np
import torch
from latent_scene import random_firings, random_tokens, text_of, write_codes

from atlas.latents import fragmentation
from atlas.latents.fragmentation import measure_fragmentation


def measure(tmp_path, dense, W_dec, tokens, name="c.h5", **options):
    codes = write_codes(tmp_path / name, dense, tokens, **options)
    text = text_of(codes)
    return measure_fragmentation(W_dec, codes, text, (dense[text.counted] > 0).sum(0))


def planted(seed=0):
    """Latents 0–2 fire together; 3 and 4 are parallel and fire apart; 5 is alone; 6 parallel to 5 but silent."""
    tokens, generator = random_tokens(200), np.random.default_rng(seed)
    dense = random_firings(tokens, [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0], seed)
    together = dense[:, 0] > 0
    for latent in (1, 2):
        dense[:, latent] = together & (generator.random(len(tokens)) < 0.9)
    dense[dense[:, 3] > 0, 4] = 0
    W_dec = torch.eye(7, 16)
    W_dec[4] = W_dec[3] + 0.3 * torch.eye(16)[9]
    W_dec[6] = W_dec[5]
    return dense, W_dec, tokens


def test_planted_pieces_are_found(tmp_path):
    found = measure(tmp_path, *planted())
    assert found.cluster.tolist() == [0, 0, 0, 1, 1, -1, -1]
    assert found.summary() == {
        "clusters_per_alive": 2 / 6,
        "surplus_per_alive": 3 / 6,
        "fragmented_share": 5 / 6,
        "largest_cluster": 3,
    }


def test_permuting_latents_permutes_clusters(tmp_path):
    dense, W_dec, tokens = planted()
    order = np.array([4, 2, 6, 0, 5, 3, 1])
    found = measure(tmp_path, dense[:, order], W_dec[order], tokens)
    original = np.array([0, 0, 0, 1, 1, -1, -1])[order]
    assert ((found.cluster[:, None] == found.cluster) == (original[:, None] == original)).all()
    assert found.cluster.max() == 1


def test_blocks_are_immaterial(tmp_path, monkeypatch):
    dense, W_dec, tokens = planted()
    whole = measure(tmp_path, dense, W_dec, tokens)
    monkeypatch.setattr(fragmentation, "_BLOCK", 2)
    parts = measure(tmp_path, dense, W_dec, tokens, "other.h5", block_rows=31)
    assert np.array_equal(whole.cluster, parts.cluster)


def test_independent_latents_are_no_pieces_however_dense(tmp_path):
    """At a density of 0.8 two independent latents share two thirds of their firings."""
    tokens = random_tokens(200)
    dense = random_firings(tokens, [0.8] * 10 + [0.01] * 10)
    found = measure(tmp_path, dense, torch.eye(20, 32), tokens)
    assert found.summary()["fragmented_share"] == 0


def test_chains_join(tmp_path):
    angle = torch.arange(4) * 0.6  # cosine .83 to the next, .36 to the one after it
    W_dec = torch.stack([angle.cos(), angle.sin()], dim=1)
    tokens = random_tokens(50)
    found = measure(tmp_path, random_firings(tokens, [0.2] * 4), W_dec, tokens)
    assert found.cluster.tolist() == [0, 0, 0, 0]


def test_nothing_alive(tmp_path):
    tokens = random_tokens(20)
    found = measure(tmp_path, np.zeros((len(tokens), 3)), torch.eye(3), tokens)
    assert found.summary() == {
        "clusters_per_alive": None,
        "surplus_per_alive": None,
        "fragmented_share": None,
        "largest_cluster": 0,
    }


def test_rows_that_are_not_counted_do_not_join(tmp_path):
    tokens = random_tokens(200)
    dense = random_firings(tokens, [0.02, 0.02])
    dense[tokens == 0] = 1  # both fire on every special token
    found = measure(tmp_path, dense, torch.eye(2), tokens)
    assert found.cluster.tolist() == [-1, -1]
