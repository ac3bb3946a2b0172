"""SAE Bench itself, in its own environment, on a tiny model: from rows of a study to the table."""

import json
import subprocess
import textwrap

import pandas as pd
import pytest
from labelled_prompts import folder_of
from peer_environments import peer_python
from project import make_project, planned, read_config, snakemake, write_config
from trained import random_sae, write_trained

from atlas.export.formats import export_sae
from atlas.files import read_json, write_json

pytestmark = pytest.mark.slow

SAE = "llama/resid_post.1/chat/topk/seed-0"
# Short prompts: the tiny tokenizer has a token per byte.
DATASET = "119_us_state_TX"


def test_study_runs_the_whole_way(tmp_path, tmp_path_factory):
    python = peer_python("sae_bench", tmp_path_factory)
    folder = make_project(tmp_path, {"llama": "llama"})
    (folder / "results" / "environments").mkdir(parents=True)
    (python.parents[1] / "ready").touch()  # newer than the copied pins, so that it is not made again
    (folder / "results" / "environments" / "sae_bench").symlink_to(python.parents[1])
    texts = [f"{'river' if i % 2 else 'market'} number {i}" for i in range(60)]
    labels = [i % 2 for i in range(60)]
    folder_of(folder / "data" / "probes", {"place": pd.DataFrame({"prompt": texts, "target": labels})})
    config = read_config(folder)
    config["probing"] = {"source": {"kind": "path", "path": "data/probes"}, "datasets": None, "ks": [1, 2]}
    config["sae_bench"] = {"datasets": [DATASET], "ks": [1, 2]}
    config["studies"]["llama_study"]["rows"] = [
        {"hook": "resid_post.1"},
        {"hook": "resid_post.0", "target_hook": "resid_post.1"},
    ]
    config["studies"]["llama_study"]["evaluation"].pop("proxy")
    write_config(folder, config)
    target = "results/llama_study_sae_bench.csv"
    snakemake(folder, target)
    assert planned(folder, target) == {}
    assert not [rule for rule in planned(folder, "results/llama_study.csv") if "sae_bench" in rule]

    rows = pd.read_csv(folder / target)
    core = rows[rows.evaluation == "core"].set_index("measure")
    # Its formulas on our rows give what it gives: the same SAE, tokens and rows, and the faults are understood.
    for name in ("explained_variance", "explained_variance_legacy", "mse"):
        assert core.sae_bench[name] == pytest.approx(core.reproduced[name], rel=2e-3), name
        assert core.status[name] == "fault"
    for name in ("cossim", "l2_norm_in", "l2_ratio", "l0", "freq_over_10_percent", "average_max_decoder_cosine_sim"):
        assert core.sae_bench[name] == pytest.approx(core.atlas[name], rel=1e-3), name
    for name in ("ce_loss_without_sae", "ce_loss_with_sae", "kl_div_with_sae"):
        assert core.sae_bench[name] == pytest.approx(core.atlas[name], rel=0.05), name
    raw = json.loads((folder / "results/sae_bench" / SAE / "core.json").read_text())  # SAE Bench's own file
    assert raw["eval_type_id"] == "core"
    run = read_json(folder / "results/sae_bench" / SAE / "core_run.json")
    assert run["largest_logit_difference"] < 1e-4
    assert run["decoder_rows_have_unit_norm"]

    probes = rows[rows.evaluation == "sae-probes"]
    assert probes.sae_bench.between(0, 1).all() and len(probes) == 3
    assert (probes.reason == f"{DATASET} is none of probing.datasets").all()
    assert rows[rows.status == "not run"].reason.str.startswith("a transcoder").all()


def in_environment(python, code: str, *arguments) -> str:
    """What a script prints in the environment."""
    done = subprocess.run(
        [python, "-I", "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


LOADER = """
    import os, sys
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from sae_bench.custom_saes.topk_sae import load_dictionary_learning_topk_sae
    folder, model = sys.argv[1:]
    try:
        sae = load_dictionary_learning_topk_sae(
            "a/b", "ae.pt", model, torch.device("cpu"), torch.float32, layer=3, local_dir=folder
        )
        print(f"loaded {sae.cfg.d_sae}")
    except AssertionError as error:
        import traceback
        print(f"refused: {traceback.extract_tb(error.__traceback__)[-1].line}")
"""


def test_its_loader_of_custom_saes_refuses_few_latents_but_its_evaluations_do_not(tmp_path, tmp_path_factory):
    """dictionary_learning files are refused when they have fewer latents than dimensions; SAELens files are judged."""
    python, said = peer_python("sae_bench", tmp_path_factory), {}
    for n_latents in (60, 20):
        folder = tmp_path / str(n_latents)
        export_sae(
            write_trained(tmp_path / f"sae-{n_latents}", random_sae(n_latents=n_latents)), "dictionary_learning", folder
        )
        config = read_json(folder / "config.json")
        # What its loader reads beside what dictionary_learning's own does.
        config["trainer"] |= {"layer": 3, "lm_name": "tiny", "trainer_class": "TopKTrainer"}
        write_json(folder / "config.json", config)
        said[n_latents] = in_environment(python, LOADER, folder, "tiny")
    assert said == {60: "loaded 60", 20: "refused: assert d_sae >= d_in"}


PROBE = """
    import torch
    from sae_bench.evals.absorption.k_sparse_probing import train_sparse_multi_probe
    from sae_bench.evals.absorption.probing import LinearProbe
    n_words, n_latents = 300, 400
    latents = torch.rand(n_words, n_latents, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(n_words, 26)
    labels[torch.arange(n_words), torch.arange(n_words) % 26] = 1
    latents = latents * (latents > 0.95)
    latents[:, :26] = labels
    torch.manual_seed(0)
    start = LinearProbe(n_latents, num_outputs=26).weights.detach().flatten()
    torch.manual_seed(0)
    probe = train_sparse_multi_probe(latents, labels, torch.device("cpu"), show_progress=False)
    print((probe.weights.detach().flatten() - start).abs().max().item())
"""


def test_its_absorption_probe_keeps_its_random_start_for_few_words(tmp_path_factory):
    """A latent that is the label gets a weight of at most its random start + 0.08, the sum of all learning rates."""
    moved = float(in_environment(peer_python("sae_bench", tmp_path_factory), PROBE))
    assert 0.01 < moved < 0.1, moved
