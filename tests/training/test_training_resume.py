"""Killed anywhere, training ends in the same bits; watching it changes nothing."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training.planted import PlantedStream, recipe, train

from atlas import tensors as tensors_module
from atlas.errors import TrainingError
from atlas.files import atomic_path
from atlas.runcard import read_run_card
from atlas.tensors import facts_of, open_tensors
from atlas.training import checkpoint
from atlas.training import train as train_module
from atlas.training import update as update_module
from atlas.training.architectures import ARCHITECTURES
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


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / "state").glob(f"*/{checkpoint.CHECKPOINT_FILE}"))


def same_files(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in FILES)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Uninterrupted runs, one per architecture, made when first asked for."""
    made = {}

    def run(architecture):
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            made[architecture] = train(folder, settings(architecture), PlantedStream(batch_size=256))
        return made[architecture]

    return run


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_killed_at_random_steps_ends_in_the_same_bits(tmp_path, architecture, whole_run):
    stream = FailingStream(batch_size=256)
    for fail_at in sorted(random.Random(architecture).sample(range(1, 40), 3)):
        stream.fail_at = fail_at
        with pytest.raises(KilledError):
            train(tmp_path, settings(architecture), stream)
    stream.fail_at = None
    cut = train(tmp_path, settings(architecture), stream)
    assert same_files(cut, whole_run(architecture))
    assert read_run_card(cut / "run_card.yaml")["cost"]["resumed_from_steps"]
    assert read_run_card(whole_run(architecture) / "run_card.yaml")["cost"]["resumed_from_steps"] == []
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_killed_while_it_writes_checkpoints_ends_in_the_same_bits(tmp_path, architecture, whole_run, monkeypatch):
    """Of the checkpoints at steps 7, 14, …, 35 some are torn: written halfway by a process that cleans nothing up."""
    cut_off_at, calls, torn = random.Random(architecture).sample(range(5), 3), [], []

    @contextlib.contextmanager
    def sometimes_torn(target):
        temporary = target.with_name(target.name + ".tmp")
        calls.append(target)
        if len(calls) - 1 not in cut_off_at:
            with atomic_path(target) as path:
                yield path
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        content = temporary.read_bytes()
        temporary.write_bytes(content[: len(content) // 2])
        torn.append(temporary)
        raise KilledError

    monkeypatch.setattr("atlas.files.atomic_path", sometimes_torn)
    cut = None
    while cut is None:
        try:
            cut = train(tmp_path, settings(architecture), PlantedStream(batch_size=256))
        except KilledError:
            assert torn[-1].exists()
    assert len(torn) == 3
    assert same_files(cut, whole_run(architecture))


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
    while not checkpoints(folder):
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
    (path,) = checkpoints(tmp_path)
    with open_tensors(path) as file:
        assert facts_of(file, path)["step"] == ended.value.step
    assert not (tmp_path / "sae").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    save, calls = tensors_module.save_file, []

    def full_at_the_second(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(tensors_module, "save_file", full_at_the_second)
    stream = PlantedStream(batch_size=256)
    with pytest.raises(TrainingError, match=r"checkpoint.safetensors: the checkpoint of step 14 .*No space left"):
        train(tmp_path / "cut", settings(), stream)
    (path,) = checkpoints(tmp_path / "cut")
    assert list(path.parent.iterdir()) == [path]
    cut = train(tmp_path / "cut", settings(), stream)
    assert read_run_card(cut / "run_card.yaml")["cost"]["resumed_from_steps"] == [7]
    whole = train(tmp_path / "whole", settings(), stream)
    assert (cut / FILES[0]).read_bytes() == (whole / FILES[0]).read_bytes()


def interrupted(folder, recipe, seed=0):
    stream = FailingStream(batch_size=256)
    stream.fail_at = 20
    with pytest.raises(KilledError):
        train(folder, recipe, stream, seed=seed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("recipe", "step 14, with lr 0.001 instead of 0.003."),
        ("seed", "step 14, with seed 1 instead of 0."),
        ("stream", "step 14, with data, hook and mix planted 32 48 3 256 5.0 1 instead of planted 32 48 3 256 5.0 0"),
        ("monitors", "step 14, with watched rows."),
    ],
)
def test_another_run_starts_anew_says_what_differs_and_loses_nothing(tmp_path, caplog, change, said):
    old, stream = settings(lr=1e-3) if change == "recipe" else settings(), FailingStream(batch_size=256)
    stream.fail_at = 20
    other = FailingStream(batch_size=256, seed=1) if change == "stream" else stream
    other.fail_at = 20
    seed, monitors = int(change == "seed"), {"in_sample": stream.rows(5, 99)} if change == "monitors" else None
    with pytest.raises(KilledError):
        train(tmp_path, old, other, seed=seed, monitors=monitors)
    with caplog.at_level(logging.WARNING), pytest.raises(KilledError):
        train(tmp_path, settings(), stream)
    assert "the checkpoint of another run" in caplog.text and said in caplog.text
    assert len(checkpoints(tmp_path)) == 2
    other.fail_at = None
    again = train(tmp_path, old, other, seed=seed, monitors=monitors)
    assert read_run_card(again / "run_card.yaml")["cost"]["resumed_from_steps"] == [14]
    assert not (tmp_path / "state").exists()


def test_a_checkpoint_in_the_place_of_another_is_refused_before_training(tmp_path, monkeypatch):
    interrupted(tmp_path / "a", settings(lr=1e-3))
    interrupted(tmp_path / "b", settings())
    (theirs,), (ours,) = checkpoints(tmp_path / "a"), checkpoints(tmp_path / "b")
    ours.write_bytes(theirs.read_bytes())
    monkeypatch.setattr(train_module, "update", lambda *_: pytest.fail("trained"))
    with pytest.raises(
        TrainingError, match=r"is the checkpoint of another run \(lr 0.001 instead of 0.003\), but lies"
    ):
        train(tmp_path / "b", settings(), PlantedStream(batch_size=256))


def test_a_run_that_ran_out_of_memory_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """From step 10 on more than 100 rows do not fit; after the kill there is room again, and the rows stay 64."""
    passes = update_module.forward

    def limited(batch, sparse):
        if batch.step >= 10 and len(batch.rows) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return passes(batch, sparse)

    monkeypatch.setattr(update_module, "forward", limited)
    whole = train(tmp_path / "whole", settings("batch_topk"), PlantedStream(batch_size=256))
    interrupted(tmp_path / "cut", settings("batch_topk"))
    monkeypatch.setattr(update_module, "forward", passes)
    cut = train(tmp_path / "cut", settings("batch_topk"), PlantedStream(batch_size=256))
    assert same_files(cut, whole)
    card = read_run_card(cut / "run_card.yaml")
    assert card["optimisation"]["micro_batch"] == 64
    assert card["optimisation"]["micro_batch_halvings"] == [{"step": 10, "rows": 128}, {"step": 10, "rows": 64}]
    assert card["warnings"][0].startswith("out_of_memory: a batch of 256 rows did not fit; since step 10 64 rows")


def test_a_damaged_checkpoint_is_named(tmp_path):
    interrupted(tmp_path, settings())
    (path,) = checkpoints(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"damaged checkpoint: .*checkpoint.safetensors: .*; delete it"):
        train(tmp_path, settings(), PlantedStream(batch_size=256))


def test_no_flipped_bit_of_a_checkpoint_is_trained_on(tmp_path):
    interrupted(tmp_path, settings())
    (path,) = checkpoints(tmp_path)
    whole, places = path.read_bytes(), random.Random(0)
    for _ in range(8):
        place = places.randrange(len(whole) // 2, len(whole))  # of the tensors
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << places.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(TrainingError, match=r"checkpoint.safetensors: truncated or altered .*; delete it to train"):
            train(tmp_path, settings(), PlantedStream(batch_size=256))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_monitoring_has_no_side_effects(tmp_path, architecture):
    stream = PlantedStream(batch_size=256)
    often, never = settings(architecture, monitor_every=1), settings(architecture, monitor_every=1000)
    random_state = torch.get_rng_state()
    watched, alone = (load_sae(train(tmp_path / str(r.monitor_every), r, stream)) for r in (often, never))
    assert torch.equal(random_state, torch.get_rng_state())
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(watched, name), getattr(alone, name))
    assert watched.threshold == alone.threshold


LOCKER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from atlas.training.lock import only_process

with only_process(Path({folder!r})):
    print("held", flush=True)
    time.sleep({seconds})
"""


@contextlib.contextmanager
def held_by_another_process(folder: Path, seconds: float):
    paths = [path for path in sys.path if path.endswith("workflow")]
    code = LOCKER.format(paths=paths, folder=str(folder), seconds=seconds)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_retry_waits_for_the_process_before_it(tmp_path, caplog):
    with caplog.at_level(logging.INFO), held_by_another_process(tmp_path / "state", 1.0) as other:
        train(tmp_path, settings(), PlantedStream(batch_size=256))
        assert other.wait(timeout=10) == 0
    assert "waiting for another process that trains this SAE" in caplog.text


def test_two_processes_do_not_train_one_sae(tmp_path, monkeypatch):
    monkeypatch.setattr("atlas.training.lock.PATIENCE_SECONDS", 0.3)
    stream = PlantedStream(batch_size=256)
    with held_by_another_process(tmp_path / "state", 60), pytest.raises(TrainingError, match="another process trains"):
        train(tmp_path, settings(), stream)
    train(tmp_path, settings(), stream)  # the lock has ended with its process
