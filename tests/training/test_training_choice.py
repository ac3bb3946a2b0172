"""Kernels of a training are measured once, recorded, kept after a resume, and never exchanged silently."""

import sys

import pytest
import torch
from training.planted import CPU, PlantedStream, recipe, train

from atlas.errors import TrainingError
from atlas.files import read_json, write_json
from atlas.runcard import read_run_card
from atlas.training import choice as choice_module
from atlas.training import train as train_module
from atlas.training.choice import RECORD_FILE, choose
from atlas.training.state import Choice, Numerics, choose_numerics


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Every shape is measured, by a clock that finds the way named in the list fastest; returns list and calls."""
    monkeypatch.setenv("ATLAS_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(choice_module, "_MEASURED_FROM", 0)
    fastest, calls = ["fused"], []

    def measure(recipe, shape, d_target, dtype):
        calls.append(shape)
        return Choice(fastest[0], "measurement", {"fused": 1.0, "sparse": 2.0})

    monkeypatch.setattr(choice_module, "_measure", measure)
    return fastest, calls


def test_a_shape_is_measured_once_for_a_machine(tmp_path, measured):
    fastest, calls = measured
    numerics, choice = choose(recipe(), 32, None, CPU, tmp_path / "one")
    assert numerics == Numerics.named(torch.float32, "fused") and choice.by == "measurement"
    fastest[0] = "sparse"
    assert choose(recipe(lr=1e-4), 32, None, CPU, tmp_path / "two")[0].fused
    assert not choose(recipe(n_latents=65), 32, None, CPU, tmp_path / "two")[0].fused
    assert len(calls) == 2
    assert len(read_json(tmp_path / "two" / RECORD_FILE)) == 2


def test_a_run_goes_on_with_the_recorded_way_on_any_machine(tmp_path, measured, monkeypatch):
    fastest, calls = measured
    choose(recipe(), 32, None, CPU, tmp_path / "state")
    fastest[0] = "sparse"
    monkeypatch.setenv("ATLAS_KERNELS", str(tmp_path / "another machine"))
    assert choose(recipe(), 32, None, CPU, tmp_path / "state")[0].fused and len(calls) == 1
    assert not choose(recipe(), 32, None, CPU, tmp_path / "another state")[0].fused


def test_a_recorded_way_that_cannot_run_is_an_error(tmp_path, measured, monkeypatch):
    choose(recipe(), 32, None, CPU, tmp_path)
    monkeypatch.setitem(sys.modules, "atlas.training.fused.passes", None)
    with pytest.raises(TrainingError, match=r"fused kernels, which cannot be loaded here .*requirements\.txt"):
        choose(recipe(), 32, None, CPU, tmp_path)
    with pytest.raises(TrainingError, match="fused kernels"):
        choose(recipe(products="fused"), 32, None, CPU, tmp_path)


def test_what_needs_no_measuring_is_not_measured(tmp_path, measured, monkeypatch):
    for settings in (recipe("relu"), recipe(parity="dictionary_learning")):
        assert choose(settings, 32, None, CPU, tmp_path)[1].by == "shape"
    for name in ("dense", "sparse", "fused"):
        numerics, choice = choose(recipe(products=name), 32, None, CPU, tmp_path)
        assert (numerics.products, choice.by) == (name, "recipe")
    monkeypatch.setattr(choice_module, "_MEASURED_FROM", 10**8)
    assert choose(recipe(), 32, None, CPU, tmp_path) == (choose_numerics(recipe(), CPU), Choice("sparse", "shape"))
    assert not measured[1]


def test_a_device_without_kernels_for_the_named_way_is_refused():
    with pytest.raises(TrainingError, match="products is fused, which needs a CPU, and this job runs on cuda"):
        choose_numerics(recipe(products="fused"), torch.device("cuda"))


@pytest.mark.parametrize("products", ["sparse", "fused"])
def test_an_architecture_without_kept_latents_takes_no_sparse_products(products):
    with pytest.raises(ValueError, match=f"products is {products}, but architecture relu computes all latents"):
        recipe("relu", products=products)


def test_measuring_times_each_way_and_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(choice_module, "_MEASURED_FROM", 0)

    def refuse(name):
        raise PermissionError("read-only")

    monkeypatch.setattr(choice_module, "locked_folder", refuse)
    before = torch.get_rng_state()
    choice = choose(recipe(k=8, batch_size=64), 32, None, CPU, tmp_path)[1]
    assert "read-only; the fastest way is measured for this job alone" in caplog.text
    assert set(choice.milliseconds) == {"fused", "sparse", "dense"} and min(choice.milliseconds.values()) > 0
    least = min(choice.milliseconds.values())
    assert choice.milliseconds[choice.products] <= choice_module._MARGIN * least
    assert torch.equal(torch.get_rng_state(), before)


class EndingStream(PlantedStream):
    ends_at: int | None = None

    def batch(self, step):
        if step == self.ends_at:
            raise KeyboardInterrupt
        return super().batch(step)


def test_a_resumed_run_has_the_same_bits_and_its_card_says_the_way(tmp_path, measured):
    """Use the recorded way, even if measuring anew would choose another; the checkpoint is of this run."""
    fastest, _ = measured
    settings, stream = recipe(checkpoint_every=7, dead_feature_tokens=512), EndingStream(batch_size=256)
    whole = train(tmp_path / "whole", settings, stream)
    stream.ends_at = 23
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", settings, stream)
    stream.ends_at, fastest[0] = None, "sparse"
    for path in (tmp_path / "kernels" / "choices").glob("*.json"):
        path.unlink()
    resumed = train(tmp_path / "killed", settings, stream)
    for name in ("sae_weights.safetensors", "cfg.json", "training.parquet"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    card = read_run_card(resumed / train_module.CARD_FILE)
    assert card["cost"]["resumed_from_steps"] == [21]
    assert (card["numerics"]["kernels"], card["numerics"]["kernels_chosen_by"]) == ("fused", "measurement")
    assert card["cost"]["update_milliseconds"] == {"fused": 1.0, "sparse": 2.0}
    assert not (tmp_path / "killed" / "state").exists()


def test_a_checkpoint_of_another_way_is_another_run(tmp_path, measured, caplog):
    stream = EndingStream(batch_size=256)
    stream.ends_at = 23
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe(checkpoint_every=7), stream)
    record = tmp_path / "state" / RECORD_FILE
    write_json(record, {key: value | {"products": "sparse"} for key, value in read_json(record).items()})
    stream.ends_at = None
    train(tmp_path, recipe(checkpoint_every=7), stream)
    assert "products torch.float32, fused instead of torch.float32, sparse" in caplog.text
