"""A job holds the batches of our stream, and our trainer on a job is our trainer."""

import json
import sys

import numpy as np
import pytest
import torch
from shards import make_shard

from atlas.activations.store import open_shards
from atlas.activations.stream import BatchStream
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.files import read_json
from atlas.frameworks.job import order_of_stream, rows_files, scale_of_stream, write_job
from atlas.frameworks.launch import FrameworkError, train_with
from atlas.frameworks.ours import Job, JobStream, Rows, card_of
from atlas.frameworks.weights import sae_of
from atlas.training.sae import load_sae
from atlas.training.train import train_sae

peer_job = sys.modules["peer_job"]

HOOK = "resid_post.0"
MIX = Mix(phases=[{"until": 1.0, "weights": {"chat": 0.75, "wiki": 0.25}}])
TOPK = Recipe(
    architecture="topk", n_latents=64, k=4, steps=12, batch_size=64, warmup_steps=3, decay_start=4, lr=1e-3,
    monitor_every=12, dead_feature_tokens=128,
)  # fmt: skip
BATCH_TOPK = TOPK.model_copy(update={"architecture": "batch_topk", "threshold_start_step": 5})


@pytest.fixture
def shards(tmp_path):
    chat = [make_shard(tmp_path / f"chat-{i}.h5", seed=i, shard=i, n_shards=2, shuffle_seed=i) for i in (0, 1)]
    wiki = make_shard(tmp_path / "wiki.h5", seed=2, corpus="wiki")
    assert all(set(rows) == set(wiki) for rows in chat)
    return {
        "chat": open_shards([tmp_path / "chat-0.h5", tmp_path / "chat-1.h5"]),
        "wiki": open_shards([tmp_path / "wiki.h5"]),
    }


def job_of(tmp_path, shards, recipe, seed=3, **options):
    stream = BatchStream(shards, HOOK, MIX, seed, recipe.batch_size, recipe.steps)
    every = [shard for group in shards.values() for shard in group]
    target = tmp_path / "job.json"
    order, scale = order_of_stream(stream, every), scale_of_stream(recipe, stream)
    write_job(
        target, recipe, rows_files(every, HOOK), "bfloat16", stream.d_model, order, scale, seed, 1, options=options
    )
    return target, stream, scale


def test_rows_of_a_job_are_the_batches_of_the_stream(tmp_path, shards):
    target, stream, scale = job_of(tmp_path, shards, TOPK)
    rows = Rows(Job(**read_json(target)))
    seen = JobStream(rows)
    for step in range(TOPK.steps):
        wanted = stream.batch(step).rows
        assert torch.equal(rows.batch(step), wanted.float() / scale)
        assert torch.equal(seen.batch(step).rows, wanted)
        assert seen.where(step) == [(path.absolute(), row) for path, row in stream.where(step)]
    assert len(rows.requested) == 2 * TOPK.steps


def test_job_has_the_recipe_and_leaves_no_row_behind(tmp_path, shards):
    target, stream, scale = job_of(tmp_path, shards, BATCH_TOPK, matmul_dtype="float32")
    job = read_json(target)
    assert (job["lr"], job["decay_start"], job["threshold_start_step"]) == (1e-3, 4, 5)
    assert job["options"] == {"matmul_dtype": "float32"}
    assert scale**2 == pytest.approx(stream.statistics().mean_square_norm)
    assert sorted(path.name for path in tmp_path.glob("job*")) == ["job.json", "job.npy"]


@pytest.mark.parametrize("recipe", [TOPK, BATCH_TOPK], ids=lambda recipe: recipe.architecture)
def test_our_runner_trains_as_the_trainer_does(tmp_path, shards, recipe):
    target, stream, scale = job_of(tmp_path, shards, recipe)
    result = train_with("atlas", target, tmp_path / "out")
    found = sae_of(tmp_path / "out", recipe.architecture, recipe.k, scale)

    torch.set_num_threads(1)
    card = card_of(Job(**read_json(target)))
    monitors, trained = {"in_sample": stream.batch(0).rows}, tmp_path / "trained"
    train_sae(recipe, stream, monitors, 3, torch.device("cpu"), trained, tmp_path / "state", card)
    wanted = load_sae(trained)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-6)
    assert found.threshold == (None if wanted.threshold is None else pytest.approx(wanted.threshold, rel=1e-5))
    assert result["threads"] == 1
    assert result["rows_per_second"] > 0
    assert result["peak_memory_mb"] > 50


def test_speed_leaves_out_the_first_steps():
    found = peer_job.speed([0.0, 50.0, 60.0, 61.0, 61.5, 62.0, 64.0], 100)
    assert found == {
        "rows_per_second": pytest.approx(100 * 3 / 3.0),
        "timed_steps": 3,
        "median_step_seconds": 0.5,
        "fastest_step_seconds": 0.5,
    }
    assert peer_job.speed([0.0, 1.0, 2.0, 3.0], 100)["rows_per_second"] is None


def test_rows_of_float32_files(tmp_path):
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    (tmp_path / "rows.bin").write_bytes(b"head" + values.tobytes())
    np.save(tmp_path / "order.npy", np.array([[9, 0], [3, 3]]))
    numbers = dict.fromkeys(("n_latents", "k", "steps", "batch_size", "warmup_steps", "dead_feature_tokens"), 2)
    job = Job(
        architecture="topk", d_model=4, lr=1.0, decay_start=None, aux_coefficient=0.0, threshold_beta=0.0,
        threshold_start_step=0, seed=0, threads=1, device="cpu", storage_dtype="float32", scale=2.0,
        files=[{"path": str(tmp_path / "rows.bin"), "offset": 4, "n_rows": 10}],
        order=str(tmp_path / "order.npy"), **numbers,
    )  # fmt: skip
    assert torch.equal(Rows(job).batch(0), torch.from_numpy(values[[9, 0]] / 2))
    assert torch.equal(Rows(job).batch(1), torch.from_numpy(values[[3, 3]] / 2))


def test_missing_environment_says_how_to_build_it(tmp_path):
    with pytest.raises(FrameworkError, match=r"sparsify has no environment at .*snakemake --cores 1 results/env"):
        train_with("sparsify", tmp_path / "job.json", tmp_path / "out", tmp_path)


def test_failed_run_shows_its_error(tmp_path, shards):
    target, _, _ = job_of(tmp_path, shards, TOPK, matmul_dtype="float8")
    with pytest.raises(FrameworkError, match=r"(?s)atlas failed on .*option matmul_dtype is 'float8': expected one of"):
        train_with("atlas", target, tmp_path / "out")
    target.write_text(json.dumps({"architecture": "topk"}))
    with pytest.raises(FrameworkError, match=r"(?s)status 1\):\nTraceback .*missing .* required .* arguments"):
        train_with("atlas", target, tmp_path / "out")
