"""Architectures that differ from Llama run the whole way too."""

import pandas as pd
import pytest
from project import make_project, snakemake

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["bert", "nemotron_h"])
def test_family_runs_the_whole_way(tmp_path, family):
    folder = make_project(tmp_path, {"model": family})
    snakemake(folder)
    table = pd.read_csv(folder / "results/model_study.csv")
    assert len(table) == 2 * 3
    assert table.atlas_explained_variance.notna().all()
    assert (folder / "results/figures/model_study.pdf").stat().st_size > 1000
