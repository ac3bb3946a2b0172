"""A study of training text by the real workflow, on a tiny model: mixes, roles, budgets, templates."""

import copy
from pathlib import Path

import pandas as pd
import pytest
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TABLES = ["results/mixes.csv", "results/mixes_finance.csv", "results/figures/mixes.png"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("finance"), {"llama": "llama"})
    config = read_config(folder)
    money = {"source": {"kind": "path", "path": "data/news.jsonl"}, "eval_fraction": 0.4}
    config["corpora"] |= {
        "money": money,
        "money-dialogue": money | {"wrapper": {"before": "User: read 3 times.\n"}},
        "money-moved": money | {"wrapper": {"before": "\n"}},
    }
    del config["corpora"]["news"], config["corpora"]["wiki"]
    config["models"]["llama"]["harvest"]["corpora"] = {"money": {"train_tokens": 3200}}
    config["mixes"]["both"] = {"phases": [{"until": 1.0, "weights": {"chat": 0.5, "money": 0.5}}]}
    row = {"hook": "resid_post.1", "override": {"n_latents": 48}}
    roles = {"in_sample": "chat", "oos": ["money"]}
    study = config["studies"].pop("llama_study")
    study |= {"rows": [row | {"mix": "chat", "evaluation": roles}, row | {"mix": "both"}]}
    config["studies"]["mixes"] = study | {"evaluation": {"in_sample": ["chat", "money"], "oos": ["money-moved"]}}
    section = {"corpus": "money", "generic": "chat", "rewritten": "money-dialogue", "moved": "money-moved"}
    config["finance"] = {"mixes": section | {"min_firings": 3}}
    config["latents"], config["evaluation"]["bootstrap_samples"] = {"min_tokens": 500}, 100
    write_config(folder, config)
    snakemake(folder, *TABLES)
    return folder


def test_a_study_of_training_text_from_end_to_end(finished):
    assert planned(finished, *TABLES) == {}
    table = pd.read_csv(finished / TABLES[0])
    roles = {(row.mix, row.corpus): row.role for row in table.itertuples()}
    assert roles["chat", "money"] == "oos" and roles["both", "money"] == "in_sample"
    assert len(roles) == 5
    finance = pd.read_csv(finished / TABLES[1]).set_index("mix")
    for name in (
        "explained_variance_all",
        "delta_loss_all",
        "turnover_rewritten",
        "turnover_moved",
        "rows_moved_moved",
    ):
        assert finance[name].notna().all()
    assert (finance.turnover_moved > 0).all() and finance.baseline_mix.tolist()[1:] == ["chat"]
    assert pd.notna(finance.gain_explained_variance_all["both"])
    assert (finance.drift_js_divergence_value > 0).all()
    shards = sorted(path.name for path in (finished / "results/activations/llama/money").iterdir())
    assert shards == ["eval-000.h5", "train-000.h5", "train-001.h5"]


def test_a_budget_beyond_the_text_says_how_much_there_is(finished):
    config = read_config(finished)
    changed = copy.deepcopy(config)
    changed["models"]["llama"]["harvest"]["corpora"]["money"]["train_tokens"] = 320_000
    write_config(finished, changed)
    try:
        said = snakemake(finished, "results/tokens/llama/money.h5", fails=True)
    finally:
        write_config(finished, config)
    assert "corpus money: train has" in said and "train_tokens: 320,000. Lower it to at most" in said
