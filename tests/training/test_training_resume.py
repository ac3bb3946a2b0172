"""KilledError anywhere, training ends in the same bits; watching it changes nothing."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training.planted import PlantedStream, recipe, train

from atlas.errors import TrainingError
from atlas.runcard import read_run_card
from atlas.training import checkpoint
from atlas.training.preemption import Preempted
from atlas.training.sae import load_sae

FILES = ("sae_weights.safetensors", "cfg.json", "training.parquet")


class KilledError(Exception):
    pass


class FailingStream(PlantedStream):
    """Ends the run when the batch of a step is asked for."""

    fail_at: int | None = None

    def batch(self, step):
        if step == self.fail_at:
            raise KilledError
        return super().batch(step)


def settings(architecture="topk", **overrides):
    return recipe(architecture, **({"checkpoint_every": 7, "dead_feature_tokens": 512} | overrides))


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "relu"])
def test_a_run_killed_at_random_steps_ends_in_the_same_bits(tmp_path, architecture):
    whole = train(tmp_path / "whole", settings(architecture), FailingStream(batch_size=256))
    stream = FailingStream(batch_size=256)
    for fail_at in sorted(random.Random(architecture).sample(range(1, 40), 3)):
        stream.fail_at = fail_at
        with pytest.raises(KilledError):
            train(tmp_path / "cut", settings(architecture), stream)
    stream.fail_at = None
    cut = train(tmp_path / "cut", settings(architecture), stream)
    for name in FILES:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_run_card(cut / "run_card.yaml")["cost"]["resumed_from_steps"]
    assert read_run_card(whole / "run_card.yaml")["cost"]["resumed_from_steps"] == []


SCRIPT = """
import sys, time
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads({threads})
from training.planted import PlantedStream, recipe, train

class Slow(PlantedStream):
    def batch(self, step):
        time.sleep(0.02)
        return super().batch(step)

train({folder!r}, recipe("batch_topk", checkpoint_every=7, dead_feature_tokens=512, steps=60), Slow(batch_size=256))
"""


def start(folder: Path) -> subprocess.Popen:
    paths = [path for path in sys.path if path.endswith(("workflow", "tests"))]
    code = SCRIPT.format(paths=paths, folder=str(folder), threads=torch.get_num_threads())
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (folder / "state" / checkpoint.CHECKPOINT_FILE).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    whole = recipe("batch_topk", checkpoint_every=7, dead_feature_tokens=512, steps=60)
    return train(tmp_path_factory.mktemp("whole"), whole, PlantedStream(batch_size=256))


def test_kill_9_and_sigterm_both_resume_to_the_same_bits(tmp_path, uninterrupted):
    process = start(tmp_path)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process = start(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait() in (128 + signal.SIGTERM, -signal.SIGTERM)  # the latter: still importing
    resumed = recipe("batch_topk", checkpoint_every=7, dead_feature_tokens=512, steps=60)
    sae = train(tmp_path, resumed, PlantedStream(batch_size=256))
    for name in FILES:
        assert (sae / name).read_bytes() == (uninterrupted / name).read_bytes(), name


def test_sigterm_writes_a_checkpoint_of_that_step_and_ends_with_143(tmp_path):
    class Terminating(PlantedStream):
        def batch(self, step):
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(step)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as ended:
        train(tmp_path, settings(checkpoint_every=1000), Terminating(batch_size=256))
    assert ended.value.code == 143
    assert 1 <= ended.value.step <= 6
    assert signal.getsignal(signal.SIGTERM) is before
    with safetensors.safe_open(tmp_path / "state" / checkpoint.CHECKPOINT_FILE, framework="pt") as file:
        assert file.metadata()["step"] == str(ended.value.step)
    assert not (tmp_path / "sae").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    save, calls = checkpoint.save_file, []

    def full_at_the_second(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_second)
    stream = PlantedStream(batch_size=256)
    with pytest.raises(TrainingError, match=r"checkpoint.safetensors: the checkpoint of step 14 .*No space left"):
        train(tmp_path / "cut", settings(), stream)
    assert [path.name for path in (tmp_path / "cut" / "state").iterdir()] == [checkpoint.CHECKPOINT_FILE]
    cut = train(tmp_path / "cut", settings(), stream)
    assert read_run_card(cut / "run_card.yaml")["cost"]["resumed_from_steps"] == [7]
    whole = train(tmp_path / "whole", settings(), stream)
    assert (cut / FILES[0]).read_bytes() == (whole / FILES[0]).read_bytes()


def interrupted(folder, recipe, seed=0):
    stream = FailingStream(batch_size=256)
    stream.fail_at = 20
    with pytest.raises(KilledError):
        train(folder, recipe, stream, seed=seed)


@pytest.mark.parametrize("change", ["recipe", "seed", "stream"])
def test_the_checkpoint_of_another_run_is_discarded_and_that_is_said(tmp_path, caplog, change):
    interrupted(tmp_path, settings(lr=1e-3) if change == "recipe" else settings(), seed=int(change == "seed"))
    stream = PlantedStream(batch_size=256, seed=int(change == "stream"))
    with caplog.at_level(logging.WARNING):
        sae = train(tmp_path, settings(), stream)
    assert "belongs to another recipe, seed, data or code; discarded" in caplog.text
    fresh = train(tmp_path / "fresh", settings(), stream)
    assert (sae / FILES[0]).read_bytes() == (fresh / FILES[0]).read_bytes()


def test_a_damaged_checkpoint_is_named(tmp_path):
    interrupted(tmp_path, settings())
    path = tmp_path / "state" / checkpoint.CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"checkpoint.safetensors: damaged checkpoint .* delete it"):
        train(tmp_path, settings(), PlantedStream(batch_size=256))


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "relu"])
def test_monitoring_has_no_side_effects(tmp_path, architecture):
    stream = PlantedStream(batch_size=256)
    often, never = settings(architecture, monitor_every=1), settings(architecture, monitor_every=1000)
    random_state = torch.get_rng_state()
    watched, alone = (load_sae(train(tmp_path / str(r.monitor_every), r, stream)) for r in (often, never))
    assert torch.equal(random_state, torch.get_rng_state())
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(watched, name), getattr(alone, name))
    assert watched.threshold == alone.threshold
