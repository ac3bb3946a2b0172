"""Architectures that differ from Llama, and objectives that differ from the next token, run the whole way too."""

import pandas as pd
import pytest
from project import make_project, read_config, snakemake, write_config

from tiny import tiny_bert

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "objective"),
    [
        ("bert", "embedding"),
        ("bert", "masked_lm"),
        ("bert", "sequence_classification"),
        ("nemotron_h", "causal_lm"),
    ],
)
def test_family_runs_the_whole_way(tmp_path, family, objective):
    folder = make_project(tmp_path, {"model": family})
    if family == "bert":
        tiny_bert(folder / "data" / "bert", objective=objective)
    config = read_config(folder)
    config["models"]["model"]["objective"] = objective
    config["models"]["model"]["harvest"]["shard_tokens"] = 4096
    config["studies"]["model_study"]["rows"].pop()
    config["studies"]["model_study"]["evaluation"]["proxy"] = []
    write_config(folder, config)
    snakemake(folder, "results/model_study.csv", "results/figures/model_study.pdf")
    table = pd.read_csv(folder / "results/model_study.csv")
    assert list(table.role) == ["in_sample", "oos"]
    assert table.atlas_explained_variance.notna().all()
    assert (table.atlas_loss_sae != table.atlas_loss_clean).all()
    assert (table.atlas_kl > 0).all() == (objective != "embedding")
    # 512 tokens in contexts of 32: one unit per context, per masked token (5 or fewer), or per token.
    units = {"embedding": (16, 16), "sequence_classification": (16, 16), "masked_lm": (64, 80), "causal_lm": (450, 512)}
    assert table.atlas_loss_units.between(*units[objective]).all()
    assert (folder / "results/figures/model_study.pdf").stat().st_size > 1000
