"""Training from files: what does not belong together is refused before anything is computed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shards import make_shard
from training.planted import CPU, recipe

from atlas.config.mixes import Mix
from atlas.errors import ConfigError, StoreError, TrainingError
from atlas.files import write_json
from atlas.runcard import public_card, read_run_card
from atlas.training import run as run_module
from atlas.training.run import TrainingInputs, run_training
from atlas.training.tracking import Tracked, Tracking

HOOK = "resid_post.0"  # 16 wide


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> TrainingInputs:
    folder = tmp_path_factory.mktemp("run")
    shards = [folder / "chat" / "train-000.h5", folder / "chat" / "eval-000.h5", folder / "news" / "eval-000.h5"]
    for number, path in enumerate(shards):
        path.parent.mkdir(exist_ok=True)
        make_shard(
            path, seed=number, split=path.name.split("-")[0], corpus=path.parent.name, corpus_fingerprint=str(path)
        )
    model = {"name": "tiny", "source": {"kind": "path"}, "revision": "r", "architecture": "llama", "d_model": 16}
    model |= {"dtype": "float32", "licence": "MIT", "weights_sha256": "w", "tokenizer_sha256": "t"}
    (folder / "model").mkdir()
    (folder / "model" / "identity.json").write_text(json.dumps(model))
    corpus = {"name": "chat", "source": {"kind": "path"}, "licence": "MIT", "template": "plain", "fingerprint": {}}
    (folder / "corpus.json").write_text(json.dumps(corpus))
    return TrainingInputs(folder / "model", shards[:1], [folder / "corpus.json"], shards[1:])


def settings(**overrides):
    return recipe(
        **({"n_latents": 24, "k": 3, "steps": 20, "batch_size": 128, "dead_feature_tokens": 1000} | overrides)
    )


def run(inputs, folder, settings=None, hook=HOOK, tracked=None):
    run_training(
        inputs,
        hook=hook,
        mix=Mix(phases=[{"until": 1.0, "weights": {"chat": 1.0}}]),
        recipe=settings or globals()["settings"](),
        seed=0,
        names={"model": "tiny", "mix": "chat", "recipe": "topk"},
        roles={"chat": "in_sample", "news": "oos"},
        monitored={"in_sample": "chat", "oos": "news"},
        monitor_rows=200,
        device=CPU,
        folder=folder / "sae",
        state=folder / "state",
        tracked=tracked,
    )
    return read_run_card(folder / "sae" / "run_card.yaml")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(run_module, "train_sae", lambda *_, **__: pytest.fail("trained"))


def test_a_card_says_how_often_a_corpus_was_visited(inputs, tmp_path):
    card = run(inputs, tmp_path)
    assert card["epochs"]["chat"] == pytest.approx(20 * 128 / card["tokens"]["rows_trainable"], rel=0.02)
    (warning,) = card["warnings"]
    assert warning.startswith("rows_repeat: corpora are visited more than once (chat 1.1")
    assert not any("rows_repeat" in text for text in run(inputs, tmp_path, settings(steps=10))["warnings"])


def test_a_card_says_how_much_evaluation_text_is_nearly_training_text(inputs, tmp_path):
    counts = {"near_duplicates": 3, "compared_documents": 60, "near_duplicate_share": 0.05}
    for judged in ("chat", "news"):
        write_json(tmp_path / f"chat/apart_from/{judged}.json", counts | {"training_documents": 9, "examples": []})
    apart = sorted((tmp_path / "chat/apart_from").iterdir())
    card = run(replace(inputs, apart=apart), tmp_path)
    assert card["near_duplicates"] == {"chat": {"chat": counts, "news": counts}}
    assert public_card(card)["near_duplicates"] == card["near_duplicates"]


def test_more_epochs_than_allowed_are_refused_before_training(inputs, tmp_path, no_training):
    message = (
        r"resid_post.0: corpus 'chat' has 2,\d{3} rows to train on, of which 200 steps of 128 rows draw 25,600: "
        r"11 epochs, max_epochs is 10\. Raise train_tokens so that 2,560 rows are stored, lower steps to 1[78]\d"
    )
    with pytest.raises(TrainingError, match=message):
        run(inputs, tmp_path, settings(steps=200))


def test_any_number_of_epochs_can_be_allowed(inputs, tmp_path):
    assert run(inputs, tmp_path, settings(steps=200, max_epochs=None, monitor_every=200))["epochs"]["chat"] > 10


def test_a_hook_that_the_store_lacks_is_named(inputs, tmp_path, no_training):
    with pytest.raises(StoreError, match=r"train-000.h5: has no hook 'resid_post.7', only resid_post.0, resid_post.1"):
        run(inputs, tmp_path, hook="resid_post.7")


def test_rows_of_another_width_are_refused(inputs, tmp_path):
    with pytest.raises(TrainingError, match=r"rows at resid_post.1 have d_model 24, model 'tiny' has 16: these"):
        run(inputs, tmp_path, hook="resid_post.1")


def test_a_non_finite_row_names_its_file(inputs, tmp_path, monkeypatch):
    """A store with such a row fails its own checks, so the row is broken after they passed."""
    read = run_module.BatchStream.batch

    def broken(self, step):
        batch = read(self, step)
        if step == 3:
            batch.rows[77] = torch.nan
        return batch

    monkeypatch.setattr(run_module.BatchStream, "batch", broken)
    path = inputs.shards[0]
    with pytest.raises(TrainingError, match=rf"step 3 \(rows from chat\).*row 77 of the batch is row \d+ of {path}$"):
        run(inputs, tmp_path)


def test_a_tracker_that_is_not_installed_is_found_first(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "read_json", lambda *_: pytest.fail("read a file"))
    monkeypatch.setattr("atlas.training.tracking.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"tracking.tensorboard .* tensorboardX is not installed: run `.* -m pip install"
    ):
        run(inputs, tmp_path, tracked=Tracked(Tracking(tensorboard=True), Path("x"), "x"))
