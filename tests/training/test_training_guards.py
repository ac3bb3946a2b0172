"""What stops training, and what is only said."""

import pytest
import torch
from training.planted import PlantedStream, card_fields, recipe, train

from atlas.errors import TrainingError
from atlas.runcard import read_run_card
from atlas.training import train as train_module


def warnings_of(folder):
    return read_run_card(folder / "run_card.yaml")["warnings"]


def test_a_broken_row_names_step_and_corpus(tmp_path):
    stream = PlantedStream(batch_size=256)
    stream.broken = {13: float("nan")}
    with pytest.raises(TrainingError, match=r"at step 13 \(rows from planted\)"):
        train(tmp_path, recipe(), stream)
    assert not (tmp_path / "sae").exists()


def test_an_error_of_the_stream_is_not_swallowed(tmp_path):
    class Broken(PlantedStream):
        def batch(self, step):
            if step == 3:
                raise OSError("shard 2 is gone")
            return super().batch(step)

    with pytest.raises(OSError, match="shard 2 is gone"):
        train(tmp_path, recipe(), Broken(batch_size=256))


def test_a_dead_window_longer_than_training_is_warned_about(tmp_path):
    (warning,) = warnings_of(train(tmp_path, recipe(dead_feature_tokens=40 * 256), PlantedStream(batch_size=256)))
    assert warning.startswith("auxiliary_loss_never_active: dead_feature_tokens is 10,240, training has 10,240 rows")
    assert warnings_of(train(tmp_path / "b", recipe(dead_feature_tokens=10_239), PlantedStream(batch_size=256))) == []
    assert warnings_of(train(tmp_path / "c", recipe(aux_coefficient=0), PlantedStream(batch_size=256))) == []
    assert warnings_of(train(tmp_path / "d", recipe("relu"), PlantedStream(batch_size=256))) == []


def test_an_l0_off_k_is_warned_about(tmp_path):
    """In-sample rows twice as large as those trained on: the threshold lets more through."""
    stream = PlantedStream(batch_size=256)
    settings = recipe("batch_topk", dead_feature_tokens=5000)
    large = {"in_sample": 2 * stream.rows(10**7, 512)}
    (warning,) = warnings_of(train(tmp_path, settings, stream, monitors=large))
    assert warning.startswith("sparsity_constraint_broken: L0 on held-out in-sample rows is ")
    assert "K is 3" in warning


def test_monitors_are_checked_before_training(tmp_path):
    stream = PlantedStream(batch_size=256)
    rows = stream.rows(1, 8)
    for monitors, message in (
        ({"oos": rows}, "'in_sample' is required"),
        ({"in_sample": rows[:, :5]}, r"'in_sample' has shape \(8, 5\): expected at least 2 rows of d_model 32"),
        ({"in_sample": rows[:1].repeat(4, 1)}, "all equal"),
        ({"in_sample": rows, "oos": torch.full((4, 32), torch.nan)}, "'oos': rows are not finite"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(tmp_path, recipe(), stream, monitors=monitors)


def test_a_batch_of_another_size_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="step 0: the batch has 128 rows, batch_size is 256"):
        train(tmp_path, recipe(), PlantedStream(batch_size=128))


def test_an_incomplete_card_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "_train", lambda *_: pytest.fail("trained"))
    card = card_fields()
    del card["model"]["revision"], card["mix"]
    with pytest.raises(TrainingError, match=r"run_card.yaml: the run card lacks model.revision, mix"):
        train(tmp_path, recipe(), PlantedStream(batch_size=256), card=card)


def test_rows_of_zeros_cannot_be_normalised(tmp_path):
    stream = PlantedStream(batch_size=256, scale=0.0)
    with pytest.raises(TrainingError, match=r"root mean square norm of the training rows is 0\.0"):
        train(tmp_path, recipe(), stream, monitors={"in_sample": torch.randn(4, 32)})
