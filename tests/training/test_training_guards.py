"""What stops training, and what is only said."""

import pytest
import torch
from training.planted import PlantedStream, card_fields, recipe, train

from atlas.errors import TrainingError
from atlas.runcard import read_run_card
from atlas.training import train as train_module
from atlas.training.guards import warnings_after


def warnings_of(folder):
    return read_run_card(folder / "run_card.yaml")["warnings"]


def test_a_broken_row_names_step_corpus_file_and_row(tmp_path):
    stream = PlantedStream(batch_size=256)
    stream.broken = {13: float("nan")}
    message = (
        r"at step 13 \(rows from planted\): 1 of 256 activation rows are not finite.*harvest anew\. "
        r"Not finite: row 0 of the batch is row 13000 of planted-000\.h5$"
    )
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, recipe(), stream)
    assert not (tmp_path / "sae").exists()


def test_of_many_broken_rows_the_first_are_named(tmp_path):
    class Broken(PlantedStream):
        def batch(self, step):
            batch = super().batch(step)
            batch.rows[120:160, 3] = float("inf")
            return batch

    with pytest.raises(TrainingError, match=r"40 of 256 .*row 120 of the batch .* row 124 of .*-000\.h5 and 35 more$"):
        train(tmp_path, recipe(), Broken(batch_size=256))


def test_divergence_names_the_largest_row(tmp_path):
    class Outlier(PlantedStream):
        def batch(self, step):
            batch = super().batch(step)
            if step == 7:
                batch.rows[200] *= 1e25
            return batch

    message = (
        r"at step 7 .*the rows are finite.*The largest row has norm .*e\+2\d, the median is .*: row 200 of the batch is"
    )
    with pytest.raises(TrainingError, match=message + r" row 7200 of planted-001\.h5$"):
        train(tmp_path, recipe(), Outlier(batch_size=256))


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
    monkeypatch.setattr(train_module, "update", lambda *_: pytest.fail("trained"))
    card = card_fields()
    del card["model"]["revision"], card["mix"]
    with pytest.raises(TrainingError, match=r"run_card.yaml: the run card lacks model.revision, mix"):
        train(tmp_path, recipe(), PlantedStream(batch_size=256), card=card)


def test_rows_of_zeros_cannot_be_normalised(tmp_path):
    stream = PlantedStream(batch_size=256, scale=0.0)
    with pytest.raises(TrainingError, match=r"root mean square norm of the training rows is 0\.0"):
        train(tmp_path, recipe(), stream, monitors={"in_sample": torch.randn(4, 32)})


def test_rows_of_another_width_than_the_models_are_refused(tmp_path):
    card = card_fields()
    card["model"]["d_model"] = 64
    with pytest.raises(TrainingError, match=r"rows at resid_post.2 have d_model 32, model 'tiny' has 64: these"):
        train(tmp_path, recipe(), PlantedStream(batch_size=256), card=card)


def test_rows_that_repeat_are_said(tmp_path):
    card = card_fields() | {"epochs": {"planted": 7.82, "once": 0.9}}
    (warning,) = warnings_of(
        train(tmp_path, recipe(dead_feature_tokens=10_000), PlantedStream(batch_size=256), card=card)
    )
    assert warning.startswith("rows_repeat: corpora are visited more than once (planted 7.82 times);")


def test_jumprelu_off_its_target_is_warned_about():
    settings = recipe("jumprelu", target_l0=20.0)
    assert warnings_after(settings, {"l0": 21.9}) == []
    (warning,) = warnings_after(settings, {"l0": 22.1})
    assert warning.startswith("sparsity_constraint_broken: L0 on held-out in-sample rows is 22.1, target_l0 is 20;")
    assert warnings_after(recipe("relu"), {"l0": 50.0}) == []
