"""A transcoder beside the SAE of its input, from configuration to table and figure."""

import json

import pandas as pd
import pytest
import yaml
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

ROWS = [
    {"hook": "mlp_in.1"},
    {"hook": "mlp_in.1", "target_hook": "mlp_out.1"},
    {"hook": "mlp_in.1", "target_hook": "mlp_out.1", "recipe": "batch_topk"},
]


def test_transcoder_runs_the_whole_way(tmp_path):
    folder = make_project(tmp_path, {"llama": "llama"})
    config = read_config(folder)
    config["models"]["llama"]["hooks"] = ["mlp_in.1", "mlp_out.1"]
    threshold = {"architecture": "batch_topk", "threshold_start_step": 50, "threshold_beta": 0.9}
    config["recipes"]["batch_topk"] = config["recipes"]["topk"] | threshold
    config["studies"]["llama_study"]["rows"] = ROWS
    config["studies"]["llama_study"]["evaluation"]["proxy"] = []
    write_config(folder, config)
    snakemake(folder, "results/llama_study.csv", "results/figures/llama_study.pdf")

    table = pd.read_csv(folder / "results/llama_study.csv")
    assert len(table) == 3 * 2
    assert (table.hook == "mlp_in.1").all()
    assert table.target_hook.fillna("").tolist() == ["", "", *["mlp_out.1"] * 4]
    assert table.atlas_explained_variance.notna().all()
    assert table.redundancy_encoder_decoder_cosine.isna().tolist() == [False, False, *[True] * 4]
    # Ablations are those of the reconstructed hook: both transcoders share theirs, the SAE has others.
    in_sample = table[table.role == "in_sample"]
    assert in_sample.atlas_loss_zero.nunique() == 2
    assert in_sample.atlas_loss_clean.nunique() == 1

    audit = json.loads((folder / "results/audits/llama.json").read_text())
    assert {check["hook"] for check in audit["checks"] if check["hook"]} == {"mlp_in.1", "mlp_out.1"}
    sae = folder / "results/saes/llama/mlp_in.1-to-mlp_out.1/chat/topk/seed-0"
    card = yaml.safe_load((sae / "run_card.yaml").read_text())
    assert (card["hook"], card["target_hook"]) == ("mlp_in.1", "mlp_out.1")
    assert json.loads((sae / "cfg.json").read_text())["metadata"]["hook_name_out"] == "blocks.1.hook_mlp_out"
    assert planned(folder, "results/llama_study.csv") == {}
