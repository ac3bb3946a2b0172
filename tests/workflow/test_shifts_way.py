"""Shifts and provoked regimes by the real workflow, on tiny models."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TABLES = [
    *("results/causes.csv", "results/causes_regimes.csv", "results/causes_confusion.csv", "results/figures/causes.png"),
    *("results/moved.csv", "results/moved_transfer.csv", "results/figures/moved_transfer.png"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The model `twin` has the weights of `llama` in a file of its own: nothing may change from one to the other."""
    folder = make_project(tmp_path_factory.mktemp("shifts"), {"llama": "llama"})
    shutil.copytree(folder / "data" / "llama", folder / "data" / "twin")
    config = read_config(folder)
    config["models"]["twin"] = config["models"]["llama"] | {"source": {"kind": "path", "path": "data/twin"}}
    config["recipes"]["copied"] = config["recipes"]["topk"] | {"initial_copies": 32}
    study = config["studies"].pop("llama_study") | {"evaluation": {"in_sample": "chat", "oos": ["news"]}}
    row = {"hook": "resid_post.1"}
    config["studies"] = {
        "causes": study
        | {
            "rows": [
                row | {"intended": "duplicated", "cause": "half are copies", "recipe": "copied"},
                row | {"intended": "failed", "cause": "rows 1000 times too large", "shift": "scaled"},
            ]
        },
        "moved": study
        | {"rows": [row | {"shift": "twin"}, row | {"shift": "layer-before"}, row | {"shift": "other-text"}]},
    }
    config["shifts"] = {
        "scaled": {"scale": 1000.0},
        "twin": {"model": "twin"},
        "layer-before": {"hook": "resid_post.0"},
        "other-text": {"corpora": {"news": "wiki"}},
    }
    config["regimes"] = {"token_counts": [200, 1000], "dead_min_tokens": 1000}
    config["evaluation"]["bootstrap_samples"] = 100
    write_config(folder, config)
    snakemake(folder, *TABLES)
    return folder


def test_everything_is_made_once(finished):
    assert planned(finished, *TABLES) == {}
    weights = list((finished / "results/saes").rglob("sae_weights.safetensors"))
    assert len(weights) == 2
    splits = {path.name for path in (finished / "results/activations/twin/chat").iterdir()}
    assert splits == {"train-000.h5", "train-001.h5", "eval-000.h5"}


def test_causes_are_called_by_their_name(finished):
    table = pd.read_csv(finished / TABLES[1])
    assert table.as_intended.all(), table[["intended", "outcome", "outcome_because"]]
    assert table["shift"].tolist()[1:] == ["scaled"] and pd.isna(table["shift"][0])
    assert (table.dead_tokens > 3500).all() and (table.dead_status == "dead").all()
    assert (table.dead_pct_at_200 >= table.dead_pct_at_1000).all() and (table.dead_pct_at_1000 >= table.dead_pct).all()
    confusion = pd.read_csv(finished / TABLES[2])
    assert confusion[confusion.intended != "random dictionary"].n.tolist() == [1, 1]


def test_an_sae_transfers_to_the_same_weights_without_any_change(finished):
    table = pd.read_csv(finished / TABLES[5]).set_index(["shift", "corpus"])
    assert len(table) == 6
    twin = table.loc["twin"]
    assert (twin.explained_variance_regular_change == 0).all() and (twin.delta_loss_change.abs() < 1e-6).all()
    assert (twin.token_turnover == 0).all() and twin.token_correlation_median.tolist() == pytest.approx([1, 1])
    assert (twin.usage_js_divergence_value == 0).all()
    before = table.loc["layer-before"]
    assert (before.explained_variance_regular_change < -0.1).all() and (before.token_turnover > 0.1).all()
    assert (before.usage_js_divergence_value > before.usage_js_divergence_null_mean).all()
    text = table.loc["other-text"]
    assert text.judged_corpus.to_dict() == {"chat": "chat", "news": "wiki"}
    assert text.token_turnover["chat"] == 0 and pd.isna(text.token_turnover["news"])
    assert "same tokens at the same places" in text.reasons["news"] and text.reasons["chat"] == "{}"


def test_a_study_table_names_the_shift_of_a_row(finished):
    table = pd.read_csv(finished / TABLES[4])
    assert table["shift"].value_counts().to_dict() == {"twin": 2, "layer-before": 2, "other-text": 2}
    assert set(table[table["shift"] == "other-text"].corpus) == {"chat", "wiki"}


def test_more_counted_tokens_than_harvested_ones_name_the_key(finished):
    config = read_config(finished)
    write_config(finished, config | {"regimes": {"token_counts": [100_000]}})
    try:
        text = snakemake(finished, "results/causes_regimes.csv", fails=True)
    finally:
        write_config(finished, config)
    assert "regimes.token_counts asks for 100,000 training tokens" in text
