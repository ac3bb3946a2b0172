"""Planted rows lie in the store's own format, and every stage from training on takes them as any others."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.activations.store import Shard, open_shards
from atlas.activations.validate import violations
from atlas.config.corpora import Corpus
from atlas.config.data import Harvest, ModelSpec
from atlas.config.mixes import Mix
from atlas.config.recipe import Recipe
from atlas.config.study import Evaluation
from atlas.errors import AuditError, StoreError
from atlas.evaluation.run import EvaluationInputs, run_evaluation
from atlas.files import read_json
from atlas.planted import plant
from atlas.planted.plant import HOOK, audit_truth, describe_sample, plant_shard, sampler_of
from atlas.planted.run import RecoveryInputs, run_recovery
from atlas.planted.study_table import verdict_table, write_recovery
from atlas.planted.truth import read_truth, write_truth
from atlas.training.run import TrainingInputs, run_training

LENGTH = 16
HARVEST = Harvest(
    context_length=LENGTH, train_tokens=4096, eval_tokens=1024, shard_tokens=2048, storage_dtype="float32"
)
CORPORA = {name: Corpus(source={"kind": "planted_sample", "seed": seed}) for seed, name in enumerate(("here", "there"))}
RECIPE = Recipe(architecture="topk", n_latents=32, k=3, steps=120, batch_size=128, lr=3e-3)
SAE_ID = "planted/resid_post.0/mix/topk/seed-0"


def spec(seed: int = 0) -> ModelSpec:
    source = {"kind": "planted", "n_features": 24, "seed": seed, "frequency": {"law": "constant", "highest": 0.12}}
    return ModelSpec(source=source, objective="none", dtype="float32", n_layers=1, d_model=16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A planted model with the shards of two samples, an SAE that was trained on one, and all that is said of it."""
    folder = tmp_path_factory.mktemp("planted")
    write_truth("planted", spec(), folder / "model")
    audit_truth(folder / "model", "float32", folder / "audit.json")
    paths = {}
    for name, corpus in CORPORA.items():
        describe_sample(name, corpus, folder / name / "corpus.json")
        for split in ("train", "eval"):
            paths[name, split] = []
            for shard in range(HARVEST.n_shards(split)):
                path = folder / name / f"{split}-{shard:03d}.h5"
                plant_shard(folder / "model", corpus, name, split, shard, HARVEST, path)
                paths[name, split].append(path)
    sae, device = folder / "saes" / SAE_ID, torch.device("cpu")
    roles = {"here": "in_sample", "there": "oos"}
    shards = [*paths["here", "eval"], *paths["there", "eval"]]
    run_training(
        TrainingInputs(folder / "model", paths["here", "train"], [folder / "here" / "corpus.json"], shards),
        hook=HOOK,
        mix=Mix(phases=[{"until": 1.0, "weights": {"here": 1.0}}]),
        recipe=RECIPE,
        seed=0,
        names={"model": "planted", "mix": "mix", "recipe": "topk"},
        roles=roles,
        monitored={"in_sample": "here", "oos": "there"},
        monitor_rows=256,
        device=device,
        folder=sae,
        state=folder / "state",
    )
    run_evaluation(
        EvaluationInputs(folder / "model", sae, paths["here", "train"], shards, []),
        hook=HOOK,
        roles=roles,
        recipe=RECIPE,
        settings=Evaluation(),
        seed=0,
        device=device,
        target=folder / "metrics.json",
    )
    run_recovery(
        RecoveryInputs(folder / "model", sae, paths["here", "train"], shards),
        corpora=CORPORA,
        draws=3,
        seed=0,
        device=device,
        target=folder / "recovery.json",
    )
    return folder, paths


def test_files_are_valid_and_rows_are_sums_of_the_directions_that_fire(made):
    folder, paths = made
    for files in paths.values():
        for path in files:
            assert violations(path) == []
    sampler, _ = sampler_of(folder / "model", CORPORA["there"], "eval")
    codes = np.concatenate([part.toarray() for _, part in sampler.codes(0, 1024)])
    rows = open_shards(paths["there", "eval"])[0].read_rows(HOOK, 0, 1024).numpy()
    assert np.allclose(rows, codes @ sampler.truth.directions, atol=1e-5)
    shard = Shard.open(paths["there", "eval"][0])
    assert (shard.document == np.arange(1024) // LENGTH).all() and shard.counted.all()


def test_train_rows_are_shuffled_and_samples_and_splits_differ(made):
    _, paths = made
    fingerprints = {Shard.open(files[0]).identity["corpus_fingerprint"] for files in paths.values()}
    assert len(fingerprints) == 4
    first, second = open_shards(paths["here", "train"])
    assert sorted(first.position) == sorted(np.tile(np.arange(LENGTH), 128))
    assert first.document.max() < second.document.min()


def test_losses_are_null_with_their_reason_and_the_rest_is_known(made):
    metrics = read_json(made[0] / "metrics.json")
    for judged in metrics["corpora"].values():
        atlas = judged["atlas"]
        for name in ("loss_clean", "delta_loss", "kl", "loss_recovered_zero", "loss_recovered_zero_interval"):
            assert atlas[name] is None
            assert "no language model" in judged["reasons"][f"atlas_{name}"]
        assert 0 < atlas["explained_variance"] < 1
        assert judged["outcome"]["atlas"]["verdict"] != "unknown"


def test_a_dictionary_finds_more_than_a_random_one_and_the_truth_finds_itself(made):
    recovery = read_json(made[0] / "recovery.json")
    found = recovery["directions"]
    assert found["truth"]["share_found"] == found["truth"]["mcc"] == 1
    assert found["random"]["share_found"] == 0
    assert found["sae"]["mcc"] > found["random"]["mcc"] + 0.1
    rows = recovery["corpora"]["here"]
    assert rows["sae"]["f1"] > rows["random"]["f1"]
    assert rows["sae"]["n_rows"] == 1024


def test_the_table_has_what_was_found_beside_all_other_columns(made, tmp_path):
    folder, _ = made
    table, verdicts = tmp_path / "s_recovery.csv", tmp_path / "s_verdicts.csv"
    files = [{SAE_ID: folder / name} for name in ("metrics.json", "recovery.json")]
    write_recovery("s", *files, {SAE_ID: ["here", "there"]}, table, verdicts)
    frame = pd.read_csv(table)
    assert list(frame.corpus) == ["here", "there"]
    beside = {"atlas_explained_variance", "redundancy_absorption_guide_value", "outcome", "atlas_loss_clean"}
    recovery = {f"{start}recovery_{name}" for start in ("", "random_", "truth_") for name in ("share_found", "recall")}
    assert beside | recovery | {"recovery_mcc_null_mean", "recovery_recall_pooled_interval_low"} <= set(frame.columns)
    assert frame.columns.is_unique
    assert "no language model" in json.loads(frame.reasons[0])["atlas_loss_clean"]
    counted = pd.read_csv(verdicts)
    assert (counted.n.sum(), counted["of"].iloc[0]) == (1, 1)  # one SAE, counted in sample


def test_verdicts_are_counted_by_what_was_found():
    found = pd.DataFrame(
        {"recovery_share_found": [0.95, 0.9, 0.6, 0.55, 0.1, 0.0], "outcome": ["good", "failed", "good"] * 2}
    )
    counted = verdict_table(found).set_index(["share_found", "verdict"])
    assert counted.loc[("0.9 and more", "failed"), ["n", "of"]].tolist() == [1, 2]
    assert counted.loc[("0.5 to 0.9", "good"), ["n", "of", "share"]].tolist() == [2, 2, 1]
    assert counted.loc[("below 0.1", "good"), "of"] == 1
    assert list(counted.index.get_level_values(0).unique()) == ["0.9 and more", "0.5 to 0.9", "0.1 to 0.5", "below 0.1"]


def test_rows_of_another_truth_are_noticed(made, tmp_path):
    folder, paths = made
    write_truth("planted", spec(seed=1), tmp_path / "other")
    with pytest.raises(StoreError, match=r"eval-000\.h5 from row 0: its rows are no draws from this truth with seed 0"):
        run_recovery(
            RecoveryInputs(tmp_path / "other", folder / "saes" / SAE_ID, paths["here", "train"], paths["here", "eval"]),
            corpora={"here": CORPORA["here"]},
            draws=2,
            seed=0,
            device=torch.device("cpu"),
            target=tmp_path / "recovery.json",
        )


def test_an_audit_fails_where_rows_are_not_what_was_planned(made, tmp_path, monkeypatch):
    folder, _ = made
    assert read_json(folder / "audit.json")["status"] == "pass"
    truth, identity = read_truth(folder / "model")
    wrong = truth.frequency.copy()
    wrong[3] *= 2
    changed = type(truth)(**{**vars(truth), "frequency": wrong})
    codes = plant.Sampler._chunk
    monkeypatch.setattr(plant, "read_truth", lambda path: (changed, identity))
    monkeypatch.setattr(
        plant.Sampler, "_chunk", lambda self, chunk: codes(plant.Sampler(truth, self.source, self.seed, "train"), chunk)
    )
    with pytest.raises(AuditError, match="failed 1 of 6 checks"):
        audit_truth(folder / "model", "float32", tmp_path / "audit.json")
    assert read_json(tmp_path / "audit.failed.json")["status"] == "fail"
