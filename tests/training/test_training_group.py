"""A group trained from a stream: the SAEs of stored shards, to the bit, wherever it was ended meanwhile."""

import os
import random
import signal

import numpy as np
import pytest
import torch
from training.group_scene import (
    BOTH,
    CURRICULUM,
    ONE,
    Scene,
    asked,
    card_apart_from_cost,
    from_store,
    from_stream,
    make_scene,
    members,
)

from atlas.activations import writer as writer_module
from atlas.activations.store import Shard
from atlas.activations.validate import violations
from atlas.errors import StoreError, TrainingError
from atlas.runcard import read_run_card
from atlas.training import group as group_module
from atlas.training.preemption import Preempted

FILES = ("sae_weights.safetensors", "cfg.json", "training.parquet")
MEMBERS = [
    asked("topk", "resid_post.0", BOTH),
    asked("batch_topk", "resid_post.1", BOTH, steps=31),
    asked("jumprelu", "resid_post.0", CURRICULUM, seed=1),
    asked("topk", "resid_post.1", CURRICULUM, batch_size=128, steps=23, seed=3),
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def stored(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    return [from_store(scene, one, folder / str(number)) for number, one in enumerate(MEMBERS)]


def assert_same(ours, theirs):
    for one, two in zip(ours, theirs, strict=True):
        for name in FILES:
            assert (one / name).read_bytes() == (two / name).read_bytes(), (one, name)
        assert card_apart_from_cost(one) == card_apart_from_cost(two)


def test_facts_are_the_same_from_store_and_stream(scene):
    for paths in zip(scene.facts("from-store"), scene.facts("from-stream"), strict=True):
        one, two = map(Shard.open, paths)
        assert violations(one.path) == [] and one.identity == two.identity and one.hooks == two.hooks
        for name in ("tokens", "document", "position", "counted"):
            assert (getattr(one, name) == getattr(two, name)).all()
        for hook in one.hooks:
            assert (one.norms(hook) == two.norms(hook)).all()
            for key, value in one.statistics(hook).items():
                assert np.all(value == two.statistics(hook)[key]), key
        with pytest.raises(StoreError, match=r"facts-000.h5: has facts about rows and no rows"):
            one.read_rows(one.hooks[0], 0, 1)


@pytest.mark.parametrize("memory_mb", [100, 0])
def test_a_group_ends_in_the_saes_of_stored_shards(scene, stored, tmp_path, memory_mb):
    ours = from_stream(scene, MEMBERS, tmp_path, window_memory_mb=memory_mb)
    assert_same(ours, stored)
    assert not (tmp_path / "windows").exists() and not list(tmp_path.glob("*/state"))


class KilledError(Exception):
    pass


def test_a_group_killed_at_random_updates_ends_in_the_same_bits(scene, stored, tmp_path, monkeypatch):
    update, left = group_module.Training.__dict__["_advance"].__globals__["update"], [0]

    def dying(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise KilledError
        return update(*arguments)

    monkeypatch.setattr("atlas.training.train.update", dying)
    for number in random.Random(0).sample(range(5, 60), 3):
        left[0] = number
        with pytest.raises(KilledError):
            from_stream(scene, MEMBERS, tmp_path, window_memory_mb=0)
    left[0] = -1
    ours = from_stream(scene, MEMBERS, tmp_path, window_memory_mb=0)
    assert_same(ours, stored)
    assert any(read_run_card(one / "run_card.yaml")["cost"]["resumed_from_steps"] for one in ours)
    assert not (tmp_path / "windows").exists()


def test_an_sae_that_is_finished_is_published_at_once_and_again_without_training(scene, stored, tmp_path, monkeypatch):
    """The last window serves all members in turn: when the fourth is in it, the first is there already."""
    advance = group_module.Training.advance

    def dying(self, until, asked_to_end):
        if self.recipe.steps == until == 23:
            raise KilledError
        advance(self, until, asked_to_end)

    monkeypatch.setattr(group_module.Training, "advance", dying)
    with pytest.raises(KilledError):
        from_stream(scene, MEMBERS, tmp_path)
    there = [(tmp_path / str(number) / "sae" / FILES[0]).is_file() for number in range(4)]
    assert there[0] and not there[3]
    # Snakemake deletes what a failed job has made.
    (tmp_path / "0" / "sae" / FILES[0]).unlink()
    monkeypatch.setattr(group_module.Training, "advance", advance)
    assert_same(from_stream(scene, MEMBERS, tmp_path), stored)


@pytest.mark.parametrize("place", ["update", "forward pass"])
def test_sigterm_saves_all_members_and_ends_with_143(scene, stored, tmp_path, monkeypatch, place):
    calls = [0]
    target = "atlas.training.train.update" if place == "update" else "atlas.activations.harvest.capture"
    name = target.rpartition(".")[2]
    module = __import__(target.rpartition(".")[0], fromlist=[name])
    usual = getattr(module, name)

    def terminating(*arguments):
        calls[0] += 1
        if calls[0] == 26:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(*arguments)

    monkeypatch.setattr(target, terminating)
    with pytest.raises(Preempted) as ended:
        from_stream(scene, MEMBERS, tmp_path)
    assert ended.value.code == 143
    assert len(list(tmp_path.glob("*/state/*/checkpoint.safetensors"))) == len(MEMBERS)
    assert_same(from_stream(scene, MEMBERS, tmp_path), stored)


def test_a_full_disk_loses_nothing_that_was_made(scene, stored, tmp_path, monkeypatch):
    """The third file of a window does not fit; the next call goes on."""
    usual, calls = writer_module.require_space, []

    def full(path, needed):
        calls.append(path)
        if len(calls) == 5:
            raise OSError(28, "No space left on device", str(path))
        usual(path, needed)

    monkeypatch.setattr(writer_module, "require_space", full)
    with pytest.raises(StoreError, match=r"windows/.*disk full: the file needs .* GB are free"):
        from_stream(scene, MEMBERS, tmp_path, window_memory_mb=0)
    assert list((tmp_path / "windows").rglob("*.h5"))
    assert_same(from_stream(scene, MEMBERS, tmp_path, window_memory_mb=0), stored)


def test_windows_that_fit_nowhere_are_refused_before_a_forward_pass(scene, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("atlas.activations.fill.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(group_module, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(StoreError, match=r"windows of .* GB are held at once, of which window_memory_mb lets 0 GB"):
        from_stream(scene, MEMBERS, tmp_path, window_memory_mb=0)


def test_a_stream_that_ends_before_the_steps_is_refused_before_a_forward_pass(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(group_module, "load_model", lambda *_: pytest.fail("loaded"))
    one = asked("topk", "resid_post.0", ONE, max_epochs=1.0)
    message = r"corpus 'chat' has 1,200 rows to train on, of which 40 steps of 64 rows draw 2,560: 2.13 epochs"
    with pytest.raises(TrainingError, match=message):
        from_stream(scene, [one], tmp_path)


def test_facts_in_another_storage_dtype_are_refused(scene, tmp_path):
    with pytest.raises(StoreError, match=r"storage_dtype is 'bfloat16', but .* the group streams has 'float32'"):
        from_stream(scene, MEMBERS, tmp_path, storage_dtype="float32")


def test_text_that_ends_before_its_budget_is_refused(scene, tmp_path):
    with pytest.raises(StoreError, match=r"corpus 'chat' has 1,280 tokens to train on, .* harvest asks for 1,600"):
        from_stream(scene, MEMBERS, tmp_path, train_tokens=1600)


def test_the_model_and_the_saes_have_each_their_own_device(scene, tmp_path, monkeypatch):
    """Pretended devices: which one is handed to the model, and which one to trainings."""
    seen = {"model": [], "sae": []}
    usual_load, usual_training = group_module.load_model, group_module.Training

    def load(folder, device):
        seen["model"].append(device)
        return usual_load(folder, torch.device("cpu"))

    def begin(recipe, stream, monitors, seed, device, *others, **named):
        seen["sae"].append(device)
        return usual_training(recipe, stream, monitors, seed, torch.device("cpu"), *others, **named)

    monkeypatch.setattr(group_module, "load_model", load)
    monkeypatch.setattr(group_module, "Training", begin)
    model, sae = torch.device("meta", 0), torch.device("meta", 1)
    from_stream(scene, MEMBERS[:1], tmp_path, devices=(sae, model))
    assert seen == {"model": [model], "sae": [sae]}


@pytest.mark.parametrize("where", [None, "cuda:0", "cuda:1"])
def test_a_model_or_a_group_that_no_device_holds_is_refused(scene, monkeypatch, where):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (1000 if str(place) == where else 10**9, 10**9))
    group = members(MEMBERS, scene.folder)
    saes, model = torch.device("cuda", 1), torch.device("cuda", 0)
    asked_of = (group, {"d_model": 32}, scene.model, saes, model)
    if where is None:
        group_module._require_device_memory(*asked_of)
        return
    message = rf"{where}: 4 SAEs and the model need .* GB there \(.* GB of SAEs, .* GB of model weights\), .* are free"
    with pytest.raises(TrainingError, match=message):
        group_module._require_device_memory(*asked_of)
