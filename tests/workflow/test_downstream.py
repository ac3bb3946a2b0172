"""Stability, probing, absorption and concepts of a study, each asked for by name, from the rows up."""

import pandas as pd
import pytest
from labelled_prompts import folder_of
from latent_scene import sentence_model
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TABLES = [f"results/llama_study_{name}.csv" for name in ("stability", "probing", "absorption", "concepts")]


def test_tables_of_a_study(tmp_path):
    folder = make_project(tmp_path, {"llama": "llama"})
    texts = [f"{'river' if i % 2 else 'market'} number {i}" for i in range(60)]
    folder_of(
        folder / "data" / "probes", {"place": pd.DataFrame({"prompt": texts, "target": [i % 2 for i in range(60)]})}
    )
    config = read_config(folder)
    config["probing"] = {"source": {"kind": "path", "path": "data/probes"}, "datasets": None, "ks": [1, 2]}
    spec = sentence_model(folder / "data/sentences")
    embedder = {"source": {"kind": "path", "path": "data/sentences"}} | spec.model_dump(include={"n_layers", "d_model"})
    config["latents"] = {"embedder": embedder}
    config["models"]["llama"]["harvest"]["eval_tokens"] = 4096
    config["concepts"] = {"prompts": 4, "prompt_tokens": 4, "new_tokens": 3, "strengths": [0.5, 2.0]}
    config["concepts"]["min_judge_auc"] = 0.5
    config["studies"]["llama_study"]["rows"] = [{"hook": "resid_post.1", "seeds": [0, 1]}, {"hook": "resid_post.0"}]
    write_config(folder, config)
    snakemake(folder, *TABLES)
    assert planned(folder, *TABLES) == {}
    stability, probing, absorption, concepts = (pd.read_csv(folder / table) for table in TABLES)
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
    detected = concepts[concepts.task == "detection"]
    assert len(detected) == 3 * 2 * 4
    assert detected.score.between(0, 1).all()
    steered = concepts[(concepts.task == "steering") & (concepts.dataset == "place")]
    assert len(steered) == 3 * 2 * 3 or steered.reason.str.contains("the judge has AUC").any()
    assert (steered.score.notna() | steered.reason.notna()).all()
    # Not part of the study's own table.
    assert not {"stability", "probing", "absorption", "concepts"} & set(planned(folder, "results/llama_study.csv"))
