"""Stability, probing and absorption of a study, each asked for by name, from the rows up."""

import pandas as pd
import pytest
from labelled_prompts import folder_of
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TABLES = [f"results/llama_study_{name}.csv" for name in ("stability", "probing", "absorption")]


def test_tables_of_a_study(tmp_path):
    folder = make_project(tmp_path, {"llama": "llama"})
    texts = [f"{'river' if i % 2 else 'market'} number {i}" for i in range(60)]
    folder_of(
        folder / "data" / "probes", {"place": pd.DataFrame({"prompt": texts, "target": [i % 2 for i in range(60)]})}
    )
    config = read_config(folder)
    config["probing"] = {"source": {"kind": "path", "path": "data/probes"}, "datasets": None, "ks": [1, 2]}
    config["studies"]["llama_study"]["rows"] = [{"hook": "resid_post.1", "seeds": [0, 1]}, {"hook": "resid_post.0"}]
    write_config(folder, config)
    snakemake(folder, *TABLES)
    assert planned(folder, *TABLES) == {}
    stability, probing, absorption = (pd.read_csv(folder / table) for table in TABLES)
    both = stability[stability.hook == "resid_post.1"]
    assert list(both.other_seeds.astype(float)) == [1, 0]
    assert both.firing_pw_mcc_value.between(0, 1).all()
    alone = stability[stability.hook == "resid_post.0"].iloc[0]
    assert pd.isna(alone.firing_pw_mcc_value)
    assert "one seed only" in alone.reasons
    assert list(probing.dataset.unique()) == ["place", "(all)"]
    assert probing.sae_auc.between(0, 1).all()
    assert len(absorption) == 3 * 3
    assert absorption.reasons.str.contains("the vocabulary has 0 words of one token").all()
    # Not part of the study's own table.
    assert not {"stability", "probing", "absorption"} & set(planned(folder, "results/llama_study.csv"))
