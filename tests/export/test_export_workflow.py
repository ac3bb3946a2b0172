"""Exports as targets: the environment is made by a rule, the peer reads what was trained, refusals say why."""

import json

import pytest
from project import make_project, planned, read_config, snakemake, write_config

pytestmark = pytest.mark.slow

TOPK = "model/resid_post.0/chat/topk/seed-0"
TRANSCODER = "model/resid_post.0-to-resid_post.1/chat/topk/seed-0"
BATCH_TOPK = "model/resid_post.0/chat/batch_topk/seed-0"


def test_exports_from_configuration_to_check(tmp_path):
    folder = make_project(tmp_path, {"model": "llama"})
    config = read_config(folder)
    batch_topk = config["recipes"]["topk"] | {"architecture": "batch_topk", "threshold_start_step": 50}
    config["recipes"]["batch_topk"] = batch_topk
    config["studies"]["model_study"]["rows"] = [
        {"hook": "resid_post.0"},
        {"hook": "resid_post.0", "target_hook": "resid_post.1"},
        {"hook": "resid_post.0", "recipe": "batch_topk"},
    ]
    write_config(folder, config)
    exports = folder / "results/exports"
    targets = [f"results/exports/sparsify/{sae}/check.json" for sae in (TOPK, TRANSCODER)]
    targets += [f"results/exports/huggingface/{sae}/export.json" for sae in (BATCH_TOPK, TRANSCODER)]
    targets += [f"results/exports/{name}/{TOPK}/export.json" for name in ("saelens", "dictionary_learning")]
    snakemake(folder, *targets)
    for sae in (TOPK, TRANSCODER):
        report = json.loads((exports / "sparsify" / sae / "check.json").read_text())
        assert report["reader"]["class"] == "sparsify.sparse_coder.SparseCoder"
        assert max(report["largest_relative_error"].values()) <= 1e-5
    assert (exports / "huggingface" / TRANSCODER / "resid_post.0-to-resid_post.1" / "cfg.json").exists()
    assert (
        "# batch\\_topk sparse autoencoder of model" in (exports / "huggingface" / BATCH_TOPK / "README.md").read_text()
    )
    assert planned(folder, *targets) == {}
    refused = snakemake(folder, f"results/exports/sparsify/{BATCH_TOPK}/export.json", fails=True)
    assert "no sparsify export: sparsify's encoder always takes the k largest latents" in refused
    assert not (exports / "sparsify" / BATCH_TOPK / "export.json").exists()
    no_saes = snakemake(
        folder, "--dry-run", "results/exports/saelens/model/resid_post.7/chat/topk/seed-0/export.json", fails=True
    )
    assert "is in no study" in no_saes
