"""Architectures that differ from Llama run the whole way too."""

import pandas as pd
import pytest
from project import make_project, read_config, snakemake, write_config

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["bert", "nemotron_h"])
def test_family_runs_the_whole_way(tmp_path, family):
    folder = make_project(tmp_path, {"model": family})
    config = read_config(folder)
    config["models"]["model"]["harvest"]["shard_tokens"] = 4096
    config["studies"]["model_study"]["rows"].pop()
    config["studies"]["model_study"]["evaluation"]["proxy"] = []
    write_config(folder, config)
    snakemake(folder)
    table = pd.read_csv(folder / "results/model_study.csv")
    assert list(table.role) == ["in_sample", "oos"]
    assert table.atlas_explained_variance.notna().all()
    assert (folder / "results/figures/model_study.pdf").stat().st_size > 1000
